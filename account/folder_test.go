package account

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"peerlink/identity"
)

// newFolder makes an account and closes it.
func newFolder(t testing.TB) (dir string, id *identity.Identity) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "acc")
	f, err := createFolder(dir, Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte("{\n  \"loopback\": true\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, f.id
}

func mustOpen(t testing.TB, dir string) *folder {
	t.Helper()
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func names(t testing.TB, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestCreatedAccountIsTheSameWhenOpened(t *testing.T) {
	dir, id := newFolder(t)
	f := mustOpen(t, dir)
	if f.id.DeviceID() != id.DeviceID() || f.id.Name() != "alice" || !f.cfg.Loopback || f.dir != dir {
		t.Errorf("%v in %s with %+v", f.id.Peer(), f.dir, f.cfg)
	}
	if err := f.trust.Check(id.Peer()); err != nil {
		t.Errorf("a new account trusts nobody: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{configFile, identityFile, lockFile, trustFile}) {
		t.Errorf("files %v", got)
	}
	for _, name := range append(names(t, dir), "") {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: mode %v, %v", name, st.Mode(), err)
		}
	}
}

func TestCreateTakesEmptyFoldersOnly(t *testing.T) {
	empty := t.TempDir()
	if err := os.Chmod(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := createFolder(empty, Options{Name: "alice"})
	if err != nil {
		t.Fatalf("an empty folder: %v", err)
	}
	f.close()
	if st, err := os.Stat(empty); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("it was left open to others: %v, %v", st.Mode(), err)
	}
	mustOpen(t, empty).close()

	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	account, _ := newFolder(t)
	file := filepath.Join(full, "thesis.txt")
	for name, tt := range map[string]struct{ dir, account, want string }{
		"a folder of other things": {full, "bob", `"thesis.txt"`},
		"an account":               {account, "bob", "there is an account already"},
		"a file":                   {file, "bob", "not a directory"},
		"a bad name":               {filepath.Join(t.TempDir(), "new"), "a\x1bb", "unprintable"},
	} {
		before := snapshot(t, tt.dir)
		if _, err := createFolder(tt.dir, Options{Name: tt.account}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
		if after := snapshot(t, tt.dir); name != "a bad name" && after != before {
			t.Errorf("%s: changed from\n%s to\n%s", name, before, after)
		}
	}
}

// snapshot is everything that is in a folder, without the lock.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == lockFile || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s: %q %v\n", p, text, err)
		return nil
	})
	return b.String()
}

func TestOpenWithoutAnAccountSaysSo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "such")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{missing, t.TempDir()} {
		if _, err := openFolder(dir); !errors.Is(err, ErrNoAccount) {
			t.Errorf("%s: %v, want ErrNoAccount", dir, err)
		}
		if _, err := os.Stat(filepath.Join(dir, lockFile)); err == nil {
			t.Errorf("%s: opening left a lock behind", dir)
		}
	}
	if _, err := openFolder(file); err == nil || errors.Is(err, ErrNoAccount) {
		t.Errorf("a file: %v", err)
	}
}

// Each way in which an account can be damaged is an error that says what to
// do, leaves every file as it is, and never looks like “no account”, as then a
// new one would be made over it.
//
// fault: D10, H6, I1
func TestDamagedAccountIsRefusedAndLeftAlone(t *testing.T) {
	in := func(dir, name string) string { return filepath.Join(dir, name) }
	cut := func(name string, n int) func(string) error {
		return func(dir string) error { return os.Truncate(in(dir, name), int64(n)) }
	}
	put := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(in(dir, name), []byte(text), 0o600) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(in(dir, name)) }
	}
	chmod := func(name string, mode fs.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(in(dir, name), mode) }
	}
	instead := func(name string, make func(string) error) func(string) error {
		return func(dir string) error { return errors.Join(os.Remove(in(dir, name)), make(in(dir, name))) }
	}
	for name, tt := range map[string]struct {
		damage func(dir string) error
		want   []string
	}{
		"keys missing":               {remove(identityFile), []string{"identity.pem is missing although", "restore"}},
		"keys and trust missing":     {func(d string) error { return errors.Join(remove(identityFile)(d), remove(trustFile)(d)) }, []string{"missing although", "restore"}},
		"keys empty":                 {cut(identityFile, 0), []string{"identity.pem is damaged", "restore"}},
		"keys truncated":             {cut(identityFile, 900), []string{"identity.pem is damaged", "restore"}},
		"keys of something else":     {put(identityFile, "-----BEGIN OPENSSH PRIVATE KEY-----\n"), []string{"is damaged"}},
		"keys for everybody":         {chmod(identityFile, 0o644), []string{"0644", "chmod 600"}},
		"keys for the group":         {chmod(identityFile, 0o640), []string{"0640", "chmod 600"}},
		"keys writable by others":    {chmod(identityFile, 0o602), []string{"0602", "chmod 600"}},
		"keys a pipe":                {instead(identityFile, makePipe), []string{"not a regular file"}},
		"keys a folder":              {instead(identityFile, func(p string) error { return os.Mkdir(p, 0o700) }), []string{"not a regular file"}},
		"keys a dangling link":       {instead(identityFile, func(p string) error { return os.Symlink("/nonexistent", p) }), []string{"not a regular file"}},
		"keys a link":                {instead(identityFile, func(p string) error { return os.Symlink("trust", p) }), []string{"not a regular file"}},
		"keys huge":                  {func(d string) error { return os.Truncate(in(d, identityFile), maxFile+1) }, []string{"larger than"}},
		"trust missing":              {remove(trustFile), []string{"trust is missing", "bans", "policy allow"}},
		"trust half written":         {cut(trustFile, 8), []string{"trust", "line 1"}},
		"trust with an error":        {put(trustFile, "policy allow\nbaned device x\nend\n"), []string{"trust", "line 2"}},
		"trust writable by all":      {chmod(trustFile, 0o666), []string{"0666"}},
		"config missing":             {remove(configFile), []string{"config.json is missing", "{}"}},
		"config half written":        {cut(configFile, 5), []string{"config.json", "line 2", "cut off"}},
		"config with a typing error": {put(configFile, "{\n\"loopbak\": true}"), []string{"config.json", "line 2", "loopbak"}},
		"folder for the group":       {chmod("", 0o750), []string{"0750", "chmod 700"}},
		"folder for everybody":       {chmod("", 0o777), []string{"0777", "chmod 700"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := newFolder(t)
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			before := ""
			if name != "keys huge" && name != "keys a pipe" {
				before = snapshot(t, dir)
			}
			for range 2 {
				_, err := openFolder(dir)
				if err == nil || errors.Is(err, ErrNoAccount) || errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("opened, or told that there is none: %v", err)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v: want %q in it", err, want)
					}
				}
			}
			if _, err := createFolder(dir, Options{Name: "mallory"}); err == nil {
				t.Error("a new account was made over it")
			}
			if before != "" && snapshot(t, dir) != before {
				t.Errorf("the files changed from\n%s to\n%s", before, snapshot(t, dir))
			}
		})
	}
}

// fault: D10
func TestAnotherUsersAccountIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	for _, name := range []string{"", identityFile, trustFile, configFile} {
		dir, _ := newFolder(t)
		if err := os.Chown(filepath.Join(dir, name), 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := openFolder(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("%q: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := createFolder(dir, Options{Name: "alice"}); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("create: %v", err)
	}
}

// fault: I5
func TestOneProcessUsesAnAccountAtATime(t *testing.T) {
	dir, _ := newFolder(t)
	f := mustOpen(t, dir)
	pid := fmt.Sprintf("process %d", os.Getpid())
	if _, err := openFolder(dir); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), pid) {
		t.Errorf("opened twice: %v, want ErrInUse with %q", err, pid)
	}
	f.close()
	f.close()
	f = mustOpen(t, dir)
	for _, note := range []string{"", "-7\n", "a\x1b[2J", strings.Repeat("9", 100)} {
		if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openFolder(dir); !errors.Is(err, ErrInUse) || strings.Contains(err.Error(), "process -") || len(err.Error()) > 200 || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("with the note %.20q: %v", note, err)
		}
	}
	f.close()

	dir = filepath.Join(t.TempDir(), "new")
	made, err := createFolder(dir, Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	defer made.close()
	if _, err := openFolder(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("opened while its maker has it: %v", err)
	}
}

// fault: I5
func TestConcurrentCreatorsMakeOneAccount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []*folder
	for range 8 {
		wg.Go(func() {
			f, err := createFolder(dir, Options{Name: "alice"})
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, f)
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Fatalf("%d creators succeeded", len(made))
	}
	made[0].close()
	if f := mustOpen(t, dir); f.id.DeviceID() != made[0].id.DeviceID() {
		t.Error("the account is not the one that was reported")
	}
}

func TestTrustChangesAreOnDiskWhenTheyReturn(t *testing.T) {
	dir, id := newFolder(t)
	f := mustOpen(t, dir)
	keys, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	onDisk := func() *identity.Trust {
		b, err := os.ReadFile(filepath.Join(dir, trustFile))
		if err != nil {
			t.Fatal(err)
		}
		var tr identity.Trust
		if err := tr.UnmarshalText(b); err != nil {
			t.Fatal(err)
		}
		return &tr
	}
	changed := f.trust.Changed()
	if err := f.setTrust(someID, identity.Banned); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("who watches the store was not told")
	}
	if onDisk().Decision(someID) != identity.Banned || f.trust.Decision(someID) != identity.Banned {
		t.Error("the ban is not both on disk and in force")
	}
	if err := f.changeTrust(func(t *identity.Trust) error { t.SetPolicy(identity.RefuseUndecided); return nil }); err != nil {
		t.Fatal(err)
	}
	if onDisk().Check(id.Peer()) == nil || f.trust.Check(id.Peer()) == nil {
		t.Error("the policy is not both on disk and in force")
	}
	if err := f.setTrust(someID, identity.Undecided); err != nil {
		t.Fatal(err)
	}
	f.close()
	f = mustOpen(t, dir)
	if f.trust.Decision(someID) != identity.Undecided || f.trust.Check(id.Peer()) == nil {
		t.Error("after a restart it is forgotten")
	}
	if now, _ := os.ReadFile(filepath.Join(dir, identityFile)); !bytes.Equal(now, keys) {
		t.Error("the keys were written again")
	}
}

func TestConcurrentTrustChangesAreAllKept(t *testing.T) {
	dir, _ := newFolder(t)
	f := mustOpen(t, dir)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := f.setTrust(identity.DeviceID{1, byte(i)}, identity.Banned); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.close()
	f = mustOpen(t, dir)
	for i := range 20 {
		if f.trust.Decision(identity.DeviceID{1, byte(i)}) != identity.Banned {
			t.Errorf("ban %d was lost", i)
		}
	}
}

// A folder in which nothing can be written: the change fails, says so, and has
// not happened.
//
// fault: H4
func TestTrustChangeThatCannotBeWrittenHasNotHappened(t *testing.T) {
	dir, _ := newFolder(t)
	f := mustOpen(t, dir)
	full := errors.New("no space left on device")
	f.change = &mortal{files: f.disk, lives: 0, err: full}
	if err := f.setTrust(someID, identity.Banned); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if f.trust.Decision(someID) != identity.Undecided {
		t.Error("the ban is in force although it would be lost")
	}
	f.change = f.disk
	if err := f.setTrust(someID, identity.Banned); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}

func TestOnlyOurOwnLeftoversAreSwept(t *testing.T) {
	for name, want := range map[string]bool{
		".identity.pem123": true, ".trust1": true, ".config.json99999999999": true, ".creating5": true,
		".trust": false, ".trust1x": false, "trust1": false, ".identity.pem.bak": false, ".bashrc": false, ".lock1": false,
	} {
		if isLeftover(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	dir, _ := newFolder(t)
	for _, name := range []string{".identity.pem123", ".trust4", "notes.txt", ".trust.bak"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, dir)
	if got := names(t, dir); !slices.Equal(got, []string{".trust.bak", configFile, identityFile, lockFile, "notes.txt", trustFile}) {
		t.Errorf("left: %v", got)
	}
}
