package localipc

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
)

// asUser starts this binary as another user, as a caller of the device in dir.
func asUser(t *testing.T, uid uint32, dir string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(folder(t), "helper")
	os.Chmod(filepath.Dir(bin), 0o755)
	if err := os.WriteFile(bin, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-test.run=^$")
	cmd.Env = append(append(os.Environ(), helperEnv+"=stream", helperDir+"="+dir, helperForeign+"=0"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// Who may call is decided by the user that the kernel names: a listed one may,
// another gets nothing but the end, whatever the folder and the socket allow.
//
// fault: G5
func TestOnlyListedUsersAreServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act for two users")
	}
	dir := folder(t)
	os.Chmod(dir, 0o711)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	failed := make(failures, 1)
	l := listen(t, Config{Identity: bob, Dir: dir, Users: []int{12345}, Logger: slog.New(failed)})
	env := []string{encodeID(t, alice), helperPeer + "=" + bob.DeviceID().String()}

	out, err := asUser(t, 12346, dir, env...).Output()
	if err == nil || !strings.HasPrefix(string(out), "error") {
		t.Errorf("an unlisted user's process: %q, %v", out, err)
	}
	if err := failed.next(t); err == nil || !strings.Contains(err.Error(), "belongs to user 12346") {
		t.Errorf("%v, want the user's number", err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	donec := make(chan error, 1)
	go func() {
		conn, peer, err := l.Accept(ctx)
		if err == nil {
			defer conn.Close()
			_, err = io.Copy(io.Discard, conn) // the helper writes, and ends
			if peer.Device != alice.DeviceID() {
				err = errors.New("another device")
			}
		}
		donec <- err
	}()
	if out, err := asUser(t, 12345, dir, env...).Output(); err != nil || !strings.Contains(string(out), "at stream") {
		t.Errorf("a listed user's process: %q, %v", out, err)
	}
	if err := <-donec; err != nil {
		t.Error(err)
	}
}
