package account_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
	"peerlink/localipc"
)

// runtimeFolder makes a folder in which devices find each other. Its path is
// short, as a socket's must be.
func runtimeFolder(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skipf("NOT TESTED: shared memory and Unix sockets on %s", runtime.GOOS)
	}
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// inOrder has a carrier begin only when those before it have failed, so that a
// busy machine cannot change which one wins.
var inOrder = peerlink.Config{HeadStart: time.Minute}

// neighbour starts a new account that echoes chats.
func neighbour(t *testing.T, name string, opts account.Options) *account.Account {
	t.Helper()
	opts.Name, opts.Manager = name, inOrder
	acc, err := account.Create(filepath.Join(t.TempDir(), name), opts)
	echo(t, direct(t, acc, err))
	return acc
}

func echo(t *testing.T, acc *account.Account) {
	t.Helper()
	l, err := acc.ConnectionManager().Listen("chat://*")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// carrierTo connects over new links, proves that bytes go and come back, and returns
// by which carrier.
func carrierTo(t *testing.T, from, to *account.Account, carriers ...string) (string, error) {
	t.Helper()
	ctx := context.Background() // no deadline: one round
	s, err := from.ConnectionManager().ConnectDevice(ctx, to.Identity().DeviceID(), "chat://x", peerlink.ConnectOptions{Carriers: carriers, Mode: peerlink.NewLink})
	if err != nil {
		return "", err
	}
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	sent := bytes.Repeat([]byte("hello "), 50_000)
	go func() {
		_, _ = s.Write(sent)
		_ = s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("an echo of %d bytes, sent %d: %v", len(got), len(sent), err)
	}
	links := from.ConnectionManager().Connections()
	if len(links) == 0 {
		t.Fatal("no link")
	}
	newest := links[0]
	for _, l := range links[1:] {
		if l.Created.After(newest.Created) {
			newest = l
		}
	}
	return newest.Carrier, s.Close()
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDevicesOfOneMachineTakeTheCheapestCarrier(t *testing.T) {
	run := runtimeFolder(t)
	bob := neighbour(t, "bob", account.Options{LocalDir: run, Listen: []string{"127.0.0.1:0"}})
	alice := neighbour(t, "alice", account.Options{LocalDir: run})
	if got, err := carrierTo(t, alice, bob); err != nil || got != "shm" {
		t.Errorf("without an address: over %q, %v; want shm", got, err)
	}
	if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		carriers []string
		want     string
	}{
		{nil, "shm"},
		{[]string{"shm", "unix", "tcp"}, "shm"},
		{[]string{"unix", "tcp"}, "unix"},
		{[]string{"tcp"}, "tcp"},
	} {
		if got, err := carrierTo(t, alice, bob, tt.carriers...); err != nil || got != tt.want {
			t.Errorf("of %v: over %q, %v; want %s", tt.carriers, got, err, tt.want)
		}
	}
	if got := filesIn(t, run); len(got) != 6 {
		t.Errorf("two devices have the files %q, want 3 each", got)
	}
	if err := errors.Join(alice.Close(), bob.Close()); err != nil {
		t.Error(err)
	}
	if got := filesIn(t, run); len(got) != 0 {
		t.Errorf("after Close there are %q", got)
	}
}

func TestDeviceElsewhereIsReachedPastTheLocalCarriers(t *testing.T) {
	bob := neighbour(t, "bob", account.Options{LocalDir: runtimeFolder(t), Listen: []string{"127.0.0.1:0"}})
	alice := neighbour(t, "alice", account.Options{LocalDir: runtimeFolder(t)})
	if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
		t.Fatal(err)
	}
	// A minute's head start each: only failures at once let TCP begin.
	if got, err := carrierTo(t, alice, bob); err != nil || got != "tcp" {
		t.Errorf("over %q, %v; want tcp", got, err)
	}
	if _, err := carrierTo(t, alice, bob, "shm", "unix"); !errors.Is(err, localipc.ErrNotHere) {
		t.Errorf("without TCP: %v", err)
	}
}

func TestLocalDirOffLeavesNoFile(t *testing.T) {
	run := runtimeFolder(t)
	t.Setenv("XDG_RUNTIME_DIR", run)
	off := neighbour(t, "off", account.Options{LocalDir: "off"})
	if got := filesIn(t, run); len(got) != 0 {
		t.Errorf("there are %q", got)
	}
	on := neighbour(t, "on", account.Options{})
	if got := filesIn(t, filepath.Join(run, "peerlink")); len(got) != 3 {
		t.Errorf("by default there are %q, want 3 files", got)
	}
	for _, carrier := range []string{"shm", "unix"} {
		if _, err := carrierTo(t, off, on, carrier); err == nil {
			t.Errorf("connected over %s, which is off", carrier)
		}
		if _, err := carrierTo(t, on, off, carrier); !errors.Is(err, localipc.ErrNotHere) {
			t.Errorf("to a device with %s off: %v", carrier, err)
		}
	}
}

// Without a network and an address an account is ready for this machine, where
// it can be found there, and for nobody otherwise.
func TestReadyWithLocalCarriersAlone(t *testing.T) {
	on := neighbour(t, "on", account.Options{LocalDir: runtimeFolder(t)})
	off := neighbour(t, "off", account.Options{LocalDir: "off"})
	if err := on.Ready(context.Background()); err != nil || !on.Here() {
		t.Errorf("with local carriers: %v, here %v", err, on.Here())
	}
	if err := off.Ready(context.Background()); err == nil || off.Here() || !strings.Contains(err.Error(), "nobody can reach this device") {
		t.Errorf("without: %v, here %v", err, off.Here())
	}
}

func TestLocalDirOfTheConfigCountsUnlessAnOptionIsSet(t *testing.T) {
	run, home := runtimeFolder(t), filepath.Join(t.TempDir(), "bob")
	acc, err := account.Create(home, account.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"local_dir": "`+run+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]int{"": 3, "off": 0} {
		acc, err := account.Open(home, account.Options{LocalDir: option})
		bob := direct(t, acc, err)
		if got := filesIn(t, run); len(got) != want {
			t.Errorf("with option %q there are %q, want %d files", option, got, want)
		}
		if err := bob.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartThatFailsLeavesNoLocalFile(t *testing.T) {
	run := runtimeFolder(t)
	bob := neighbour(t, "bob", account.Options{LocalDir: "off", Listen: []string{"127.0.0.1:0"}})
	acc, err := account.Create(filepath.Join(t.TempDir(), "alice"), account.Options{LocalDir: run, Listen: bob.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	if err := acc.Start(context.Background()); err == nil {
		t.Fatal("started on a port that is taken")
	}
	if got := filesIn(t, run); len(got) != 0 {
		t.Errorf("there are %q", got)
	}
}

// fault: D5
func TestBannedDeviceIsRefusedOverLocalCarriers(t *testing.T) {
	run := runtimeFolder(t)
	bob := neighbour(t, "bob", account.Options{LocalDir: run})
	alice := neighbour(t, "alice", account.Options{LocalDir: run})
	chats := map[string]io.Reader{}
	for _, carrier := range []string{"shm", "unix"} {
		s, err := alice.ConnectionManager().ConnectDevice(context.Background(), bob.Identity().DeviceID(), "chat://x", peerlink.ConnectOptions{Carriers: []string{carrier}, Mode: peerlink.NewLink})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
		chats[carrier] = s
	}
	who := alice.Identity().DeviceID()
	if err := bob.SetTrust(who, identity.Banned); err != nil {
		t.Fatal(err)
	}
	for carrier, s := range chats {
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a banned device's channel read %v", carrier, err)
		}
		if _, err := carrierTo(t, alice, bob, carrier); err == nil {
			t.Errorf("%s: a banned device connected", carrier)
		}
		if _, err := carrierTo(t, bob, alice, carrier); !errors.Is(err, identity.ErrNotTrusted) {
			t.Errorf("%s: calling a banned device: %v", carrier, err)
		}
	}
	if _, err := carrierTo(t, alice, bob); err == nil {
		t.Error("a banned device connected")
	}
	awaitNoLink(t, bob)
	if err := bob.SetTrust(who, identity.Undecided); err != nil {
		t.Fatal(err)
	}
	if got, err := carrierTo(t, alice, bob); err != nil || got != "shm" {
		t.Errorf("once it is no longer banned: over %q, %v", got, err)
	}
}

// awaitNoLink waits for links to be gone, which no callback here announces.
func awaitNoLink(t *testing.T, acc *account.Account) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		links := acc.ConnectionManager().Connections()
		if len(links) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("there are still links: %+v", links)
		}
	}
}

// A folder that was asked for and cannot be used is an error of Start, whether an
// option or the config names it, and says what to do.
func TestUnusableLocalDirIsAnErrorOfStart(t *testing.T) {
	run := runtimeFolder(t)
	file, open := filepath.Join(run, "file"), filepath.Join(run, "open")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		file:                              "is no folder",
		open:                              "may be changed by other users",
		filepath.Join(run, "a", "b"):      "no such file",
		run + strings.Repeat("/long", 40): "",
	} {
		home := filepath.Join(t.TempDir(), "alice")
		named, err := account.Create(home, account.Options{LocalDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		check := func(how string, acc *account.Account) {
			err := acc.Start(t.Context())
			for _, part := range []string{"local_dir", dir, want, `"off"`} {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("by %s: %v, want %q in it", how, err, part)
				}
			}
			if acc.Here() {
				t.Errorf("by %s: it is here", how)
			}
			if err := acc.Close(); err != nil {
				t.Error(err)
			}
		}
		check("option", named)
		inMemory, err := account.New(account.Options{LocalDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		check("option, in memory", inMemory)
		if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"local_dir": "`+dir+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		configured, err := account.Open(home, account.Options{})
		if err != nil {
			t.Fatal(err)
		}
		check("config", configured)
	}
}

// Where the default folder cannot be used that is said, and the account works
// without it.
func TestUnusableDefaultFolderIsLoggedAndDoneWithout(t *testing.T) {
	run := runtimeFolder(t)
	t.Setenv("XDG_RUNTIME_DIR", run)
	dir := filepath.Join(run, "peerlink")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	bob := neighbour(t, "bob", account.Options{LocalDir: "off", Listen: []string{"127.0.0.1:0"}})
	var log bytes.Buffer
	alice := neighbour(t, "alice", account.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
		t.Fatal(err)
	}
	if got, err := carrierTo(t, alice, bob); err != nil || got != "tcp" || alice.Here() {
		t.Errorf("over %q, %v", got, err)
	}
	if err := alice.Close(); err != nil {
		t.Error(err)
	}
	for _, part := range []string{"level=WARN", dir, "may be changed by other users"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("logged %q, want %q in it", log.String(), part)
		}
	}
}

// A copy of an account's folder is the same device. The one that came second is
// not found on this machine, but still calls others.
func TestSecondProcessOfADeviceOnlyCalls(t *testing.T) {
	run, copied := runtimeFolder(t), filepath.Join(t.TempDir(), "copy")
	first := neighbour(t, "alice", account.Options{LocalDir: run})
	bob := neighbour(t, "bob", account.Options{LocalDir: run})
	if err := os.Mkdir(copied, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.pem", "config.json", "trust"} {
		b, err := os.ReadFile(filepath.Join(first.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	acc, err := account.Open(copied, account.Options{LocalDir: run, Manager: inOrder, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	second := direct(t, acc, err)
	if got, err := carrierTo(t, second, bob); err != nil || got != "shm" {
		t.Errorf("over %q, %v; want shm", got, err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "another process serves this device") {
		t.Errorf("logged %q", log.String())
	}
	if got, err := carrierTo(t, bob, first); err != nil || got != "shm" {
		t.Errorf("the first is no longer found: over %q, %v", got, err)
	}
}

// case: E21
func TestTheRegionOfSharedMemoryIsAnOption(t *testing.T) {
	dir := runtimeFolder(t)
	bob := neighbour(t, "bob", account.Options{LocalDir: dir})
	alice := neighbour(t, "alice", account.Options{LocalDir: dir, RegionSize: 128 << 10}) // the smaller wish counts
	if carrier, err := carrierTo(t, alice, bob); err != nil || carrier != "shm" {
		t.Fatal(carrier, err)
	}
	if c := alice.ConnectionManager().Connections()[0]; c.Path.String() != "shm (128 KiB)" {
		t.Errorf("the path is %s", c.Path)
	}
	acc, err := account.Create(filepath.Join(t.TempDir(), "carol"), account.Options{LocalDir: dir, RegionSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	if err := acc.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "RegionSize") {
		t.Errorf("a region of one byte: %v", err)
	}
}
