package account_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
)

const netnsEnv = "PEERLINK_TEST_NETNS"

// Two devices with nothing configured, on a LAN without any node or server, find
// each other and talk. The LAN is a network namespace of the test's own.
//
// fault: E5
func TestS55_DevicesOnOneLANConnectWithoutAnyNode(t *testing.T) {
	if os.Getenv(netnsEnv) == "" {
		runInOwnNetwork(t)
		return
	}
	for _, args := range []string{
		"link set lo up", "link add lan0 type veth peer name lan1", "addr add 192.0.2.1/24 dev lan0",
		"link set lan0 up", "link set lan1 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	acc, err := account.Create(filepath.Join(dir, "bob"), account.Options{LAN: true, LocalDir: "off", Logger: lanLog()})
	bob := direct(t, acc, err)
	acc, err = account.Create(filepath.Join(dir, "alice"), account.Options{LAN: true, LocalDir: "off", Logger: lanLog()})
	alice := direct(t, acc, err)
	l, err := bob.ConnectionManager().Listen("chat://*")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*account.Account{alice, bob} {
		if err := a.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	said := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		said <- err
	}()
	c, err := alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "chat://hello", peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("echo %q, %v", got, err)
	}
	_ = c.Close()
	if err := <-said; err != nil {
		t.Error(err)
	}
}

// runInOwnNetwork runs the calling test in a process with a network of its own.
func runInOwnNetwork(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT TESTED: local networks, for want of iproute2's ip")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), netnsEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Skipf("NOT TESTED: local networks, as no network namespace can be made: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
}

func lanLog() *slog.Logger {
	if os.Getenv("LAN_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
