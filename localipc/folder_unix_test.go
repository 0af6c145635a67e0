//go:build linux || darwin

package localipc

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/internal/packed"
)

func fails(t *testing.T, cfg Config, want string) error {
	t.Helper()
	l, err := Listen(context.Background(), cfg)
	if err == nil {
		l.Close()
		t.Fatalf("listened, want an error with %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q in it", err, want)
	}
	return err
}

// fault: G4
func TestUnsafeFoldersAreRefused(t *testing.T) {
	bob := newIdentity(t, "bob")
	dir := folder(t)
	sub := func(name string) string { return filepath.Join(dir, name) }
	os.Mkdir(sub("open"), 0o700)
	os.Chmod(sub("open"), 0o777)
	fails(t, Config{Identity: bob, Dir: sub("open")}, "chmod 0700")
	os.Mkdir(sub("seen"), 0o755)
	fails(t, Config{Identity: bob, Dir: sub("seen")}, "chmod 0700")
	os.Symlink(folder(t), sub("link"))
	fails(t, Config{Identity: bob, Dir: sub("link")}, "is no folder")
	os.WriteFile(sub("file"), nil, 0o600)
	fails(t, Config{Identity: bob, Dir: sub("file")}, "is no folder")
	fails(t, Config{Identity: bob, Dir: sub("no/where")}, "make the runtime folder")
	fails(t, Config{Identity: bob, Dir: "relative"}, "absolute")
	fails(t, Config{Identity: bob, Dir: sub(strings.Repeat("x", 100))}, "shorter path")
	if got := entries(t, dir); !slices.Equal(got, []string{"file", "link", "open", "seen"}) {
		t.Errorf("the folder has %q now", got)
	}
	d := &Dialer{Config: Config{Identity: bob, Dir: sub("open")}}
	if _, _, err := d.Dial(context.Background(), newIdentity(t, "alice").DeviceID()); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("dialling in an open folder: %v", err)
	}
}

func TestFolderIsMadeAndEmptiedAgain(t *testing.T) {
	dir := filepath.Join(folder(t), "run")
	bob := newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir, Services: []string{"shm"}})
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", st.Mode(), err)
	}
	base := bob.DeviceID().String()[:nameDigits]
	if got := entries(t, dir); !slices.Equal(got, []string{base + ".lock", base + ".peer", base + ".sock"}) {
		t.Errorf("the folder has %q", got)
	}
	for _, name := range entries(t, dir) {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	d := &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}}
	found, err := d.Devices()
	if err != nil || len(found) != 1 || found[0].Peer.Device != bob.DeviceID() || found[0].PID != os.Getpid() || !slices.Equal(found[0].Services, []string{"shm"}) {
		t.Errorf("found %+v, %v", found, err)
	}
	l.Close()
	l.Close()
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("Close left %q", got)
	}
	if _, _, err := d.Dial(context.Background(), bob.DeviceID()); !errors.Is(err, ErrNotHere) {
		t.Errorf("%v, want ErrNotHere", err)
	}
}

// What is not this user's socket or file is neither removed nor followed.
//
// fault: G2
func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	bob := newIdentity(t, "bob")
	for _, suffix := range []string{sockSuffix, lockSuffix, peerSuffix, newSuffix} {
		for kind, make := range map[string]func(path string) error{
			"folder": func(path string) error { return os.Mkdir(path, 0o700) },
			"link":   func(path string) error { return os.Symlink("/etc/passwd", path) },
			"fifo":   func(path string) error { return unix.Mkfifo(path, 0o600) },
			"file": func(path string) error {
				if suffix != sockSuffix {
					return errors.ErrUnsupported // such a file is ours
				}
				return os.WriteFile(path, []byte("precious"), 0o600)
			},
		} {
			dir := folder(t)
			path := newPlace(dir, bob.DeviceID()).path(suffix)
			if err := make(path); err != nil {
				continue
			}
			before, _ := os.Lstat(path)
			l, err := Listen(context.Background(), Config{Identity: bob, Dir: dir})
			if err == nil {
				l.Close()
				t.Errorf("%s as %s: listened", kind, suffix)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("%s as %s: %v does not say where", kind, suffix, err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("%s as %s: it is gone: %v", kind, suffix, err)
			}
		}
	}
}

// fault: G2
func TestOtherUsersFilesAreLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's files")
	}
	bob := newIdentity(t, "bob")
	for _, suffix := range []string{sockSuffix, lockSuffix, peerSuffix} {
		dir := folder(t)
		path := newPlace(dir, bob.DeviceID()).path(suffix)
		if suffix == sockSuffix {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			l.Close()
		} else {
			os.WriteFile(path, nil, 0o600)
		}
		os.Chown(path, 12345, 12345)
		fails(t, Config{Identity: bob, Dir: dir}, "belongs to user 12345")
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v", suffix, err)
		}
	}
	dir := folder(t)
	os.Chown(dir, 12345, 12345)
	fails(t, Config{Identity: bob, Dir: dir}, "belongs to user 12345")
	d := &Dialer{Config: Config{Identity: bob, Dir: dir}}
	if _, _, err := d.Dial(context.Background(), newIdentity(t, "eve").DeviceID()); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("looked into a stranger's folder: %v", err)
	}
}

// fault: G2, G6
func TestLiveDeviceIsNotReplaced(t *testing.T) {
	dir := folder(t)
	bob := newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir})
	if err := fails(t, Config{Identity: bob, Dir: dir}, "process "); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
	link(t, l, &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}})
}

// fault: G6
func TestManyStartAtOnceAndOneWins(t *testing.T) {
	dir := folder(t)
	bob := newIdentity(t, "bob")
	others := make([]Config, 4) // they sweep meanwhile
	for i := range others {
		others[i] = Config{Identity: newIdentity(t, "other"), Dir: dir}
	}
	for range 10 {
		var wg sync.WaitGroup
		won := make(chan *Listener, 8)
		for range 8 {
			wg.Go(func() {
				l, err := Listen(context.Background(), Config{Identity: bob, Dir: dir})
				if err == nil {
					won <- l
				} else if !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			})
		}
		for _, cfg := range others {
			wg.Go(func() {
				l, err := Listen(context.Background(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				l.Close()
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of 8 listen", len(won))
		}
		l := <-won
		d := &Dialer{Config: Config{Identity: others[0].Identity, Dir: dir}}
		c, s := link(t, l, d)
		c.Close()
		s.Close()
		l.Close()
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// A lock whose file was removed while it was waited for is nobody's.
//
// fault: G6
func TestLockOfRemovedFileIsNotTaken(t *testing.T) {
	path := filepath.Join(folder(t), "x.lock")
	var wg sync.WaitGroup
	var mu sync.Mutex
	held, rounds := 0, 0
	for range 8 {
		wg.Go(func() {
			for range 200 {
				l, err := takeLock(path)
				if errors.Is(err, errLocked) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				held++
				rounds++
				if held > 1 {
					t.Error("two hold the lock")
				}
				mu.Unlock()
				mu.Lock()
				held--
				mu.Unlock()
				l.release()
			}
		})
	}
	wg.Wait()
	if rounds == 0 {
		t.Error("nobody ever held the lock")
	}
}

// Close removes the socket that was bound, not what somebody put in its place.
//
// fault: G2
func TestCloseRemovesOnlyItsOwn(t *testing.T) {
	dir := folder(t)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	os.Remove(l.Path())
	other, err := net.Listen("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.Close()
	if _, err := os.Lstat(l.Path()); err != nil {
		t.Errorf("another's socket was removed: %v", err)
	}
}

func TestAnothersAnnouncementIsNotRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's files")
	}
	dir := folder(t)
	bob := newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir})
	d := &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}}
	link(t, l, d)
	path := newPlace(dir, bob.DeviceID()).path(peerSuffix)
	os.Chown(path, 12345, 12345)
	if _, _, err := d.Dial(context.Background(), bob.DeviceID()); err == nil || !strings.Contains(err.Error(), path+" belongs to user 12345") {
		t.Errorf("%v, want a refusal of the announcement", err)
	}
}

// fault: G2
func TestForgedAnnouncementsAreRefused(t *testing.T) {
	dir := folder(t)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir})
	path := newPlace(dir, bob.DeviceID()).path(peerSuffix)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	eves, err := Config{Identity: newIdentity(t, "eve")}.announce(1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bent := slices.Clone(good)
	bent[len(bent)-1] ^= 1
	newer, err := packed.Pack(wireVersion+1, "?")
	if err != nil {
		t.Fatal(err)
	}
	if newer, err = packed.Pack(newer, []byte("sig")); err != nil {
		t.Fatal(err)
	}
	d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
	for want, b := range map[string][]byte{
		"malformed":              good[:len(good)/2],
		"is the announcement of": eves,
		"signature":              bent,
		"bytes, an announcement": make([]byte, 1<<20),
		"restart it":             newer,
	} {
		os.WriteFile(path, b, 0o600)
		if _, _, err := d.Dial(context.Background(), bob.DeviceID()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	os.WriteFile(path, good, 0o600)
	link(t, l, d)
}

func TestAnnouncementSaysWhoAndSince(t *testing.T) {
	bob := newIdentity(t, "bob")
	now := time.UnixMilli(time.Now().UnixMilli())
	b, err := Config{Identity: bob}.announce(1, now)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := readAnnouncement(b, now); err != nil || d.Peer.Device != bob.DeviceID() || d.PID != 1 || !d.Since.Equal(now) {
		t.Errorf("%+v, %v", d, err)
	}
}

// fault: G2, G6
func TestStaleFilesOfOthersAreSwept(t *testing.T) {
	dir := folder(t)
	alive := listen(t, Config{Identity: newIdentity(t, "alive"), Dir: dir})
	for range 3 {
		dead := newPlace(dir, newIdentity(t, "dead").DeviceID())
		for _, suffix := range []string{lockSuffix, peerSuffix, newSuffix} {
			os.WriteFile(dead.path(suffix), nil, 0o600)
		}
		l, err := net.Listen("unix", dead.path(sockSuffix))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	if got := entries(t, dir); len(got) != 7 || got[len(got)-1] != "notes.txt" {
		t.Errorf("the folder has %q, want two devices and notes.txt", got)
	}
	link(t, alive, &Dialer{Config: Config{Identity: l.cfg.Identity, Dir: dir}})
}
