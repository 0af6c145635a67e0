package localipc

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
	cmd.Env = append(append(os.Environ(), helperEnv+"=stream", helperDir+"="+dir), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// Who may call is decided by the user that the kernel names: another one gets
// nothing but the end, whatever the folder and the socket allow.
//
// fault: G5
func TestAnotherUserIsNotServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act for two users")
	}
	dir := folder(t)
	bob := newIdentity(t, "bob")
	failed := make(failures, 1)
	l := listen(t, Config{Identity: bob, Dir: dir, Logger: slog.New(failed)})
	os.Chmod(dir, 0o711)
	os.Chmod(l.Path(), 0o666)
	out, err := asUser(t, 12346, dir, encodeID(t, newIdentity(t, "alice")), helperPeer+"="+bob.DeviceID().String(), helperSocket+"="+l.Path()).Output()
	if err == nil || !strings.HasPrefix(string(out), "error") {
		t.Errorf("another user's process: %q, %v", out, err)
	}
	if err := failed.next(t); err == nil || !strings.Contains(err.Error(), "belongs to user 12346") {
		t.Errorf("%v, want the user's number", err)
	}
}
