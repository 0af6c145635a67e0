//go:build linux || darwin

package runfolder

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyAFolderOfThisUserThatOthersCannotChangeWillDo(t *testing.T) {
	home := t.TempDir()
	good := filepath.Join(home, "run")
	for range 2 {
		if err := Own(good); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(good); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	for want, dir := range map[string]string{
		"absolute":    "run",
		"no folder":   filepath.Join(home, "link"),
		"chmod 0700":  filepath.Join(home, "open"),
		"make the ru": filepath.Join(home, "none", "run"),
	} {
		switch want {
		case "no folder":
			if err := os.Symlink(good, dir); err != nil {
				t.Fatal(err)
			}
		case "chmod 0700":
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)); err != nil {
				t.Fatal(err)
			}
		}
		if err := Own(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	if err := CheckSocket(filepath.Join(home, strings.Repeat("long", 40))); err == nil {
		t.Error("a path that the system cannot address was taken")
	}
}

func TestOnlyWhatPeerlinkMakesIsRemoved(t *testing.T) {
	dir := t.TempDir()
	sock, plain := filepath.Join(dir, "s"), filepath.Join(dir, "f")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(plain, fs.ModeSocket); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("a plain file in a socket's place: %v", err)
	}
	for range 2 { // the second time nothing is there
		if err := errors.Join(Remove(sock, fs.ModeSocket), Remove(plain, 0)); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOnlyPlainFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	plain, link, pipe := filepath.Join(dir, "f"), filepath.Join(dir, "l"), filepath.Join(dir, "p")
	if err := errors.Join(os.WriteFile(plain, nil, 0o600), os.Symlink(plain, link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, dir, filepath.Join(dir, "none")} {
		if f, _, err := Open(path); err == nil {
			f.Close()
			t.Errorf("%s was opened", path)
		}
	}
	for mode, writable := range map[fs.FileMode]bool{0o600: false, 0o644: false, 0o620: true, 0o602: true} {
		if err := os.Chmod(plain, mode); err != nil {
			t.Fatal(err)
		}
		f, st, err := Open(plain)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if Writable(st) != writable {
			t.Errorf("mode %04o: writable %v", mode, !writable)
		}
	}
}

func TestTheKernelSaysWhoIsThere(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if uid, pid, err := PeerOf(conn); err != nil || uid != os.Geteuid() || pid != os.Getpid() {
		t.Errorf("user %d, process %d, %v", uid, pid, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, _, err := PeerOf(a); !errors.Is(err, ErrNoSocket) {
		t.Errorf("a pipe within the process: %v", err)
	}
}

// case: S20
func TestATakenFolderIsNotWaitedFor(t *testing.T) {
	home, tmp := t.TempDir(), t.TempDir()
	for name, value := range map[string]string{"XDG_RUNTIME_DIR": "", "TMPDIR": tmp, "HOME": home, "XDG_CACHE_HOME": filepath.Join(home, "cache")} {
		t.Setenv(name, value)
	}
	usual := Default()
	if filepath.Dir(usual) != tmp {
		t.Fatalf("%s is not in the folder for temporary files", usual)
	}
	if err := errors.Join(Own(usual), os.Remove(usual)); err != nil {
		t.Fatal(err)
	}
	for name, take := range map[string]func() error{
		"a folder that others can change": func() error { return errors.Join(os.Mkdir(usual, 0o700), os.Chmod(usual, 0o777)) },
		"another user's": func() error {
			if os.Geteuid() != 0 {
				return os.WriteFile(usual, nil, 0o600)
			}
			return errors.Join(os.Mkdir(usual, 0o700), os.Chown(usual, 65534, 65534))
		},
		"a link":                func() error { return os.Symlink(home, usual) },
		"nowhere to make it in": func() error { t.Setenv("TMPDIR", filepath.Join(tmp, "none")); return nil },
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			dir := Default()
			if err := Own(dir); err != nil || !strings.HasPrefix(dir, filepath.Join(home, "")) {
				t.Errorf("%s: %s, %v", name, dir, err)
			}
		}
		t.Setenv("TMPDIR", tmp)
		if err := os.RemoveAll(usual); err != nil {
			t.Fatal(err)
		}
	}
	if dir := Default(); dir != usual {
		t.Errorf("%s, though %s is free again", dir, usual)
	}
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	if err := os.WriteFile(usual, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if dir := Default(); dir != usual {
		t.Errorf("without a home: %s", dir)
	}
}
