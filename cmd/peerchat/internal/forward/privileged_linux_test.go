package forward

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fault: H8
func TestAPrivilegedPortIsToldAsOne(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(b)) == "0" {
		t.Skip("NOT TESTED: this machine has no privileged ports")
	}
	res := make(chan error, 1)
	go func() { // a thread without the right, which ends with its goroutine
		runtime.LockOSThread()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capset(&hdr, &caps[0]); err != nil {
			res <- err
			return
		}
		l, err := Listen(t.Context(), Address{"tcp", "127.0.0.1:81"})
		if err == nil {
			_ = l.Close()
		}
		res <- err
	}()
	err := <-res
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "127.0.0.1:81") || !strings.Contains(err.Error(), "ports below 1024") {
		t.Errorf("a privileged port: %v", err)
	}
}
