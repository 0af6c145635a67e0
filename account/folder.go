package account

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"

	"peerlink/identity"
)

var (
	// ErrNoAccount is matched when the folder has no account, so that one can be
	// made there.
	ErrNoAccount = errors.New("no account here")
	// ErrInUse is matched when another process uses the account.
	ErrInUse = errors.New("another process uses the account")
)

// folder is an account on disk, locked. dir, id and trust stay the same; id and
// trust may be used concurrently, but trust is changed through the folder only,
// which puts each change on disk first.
type folder struct {
	dir   string
	id    *identity.Identity
	trust *identity.Trust
	cfg   Options // the settings of config.json, nothing else

	devices atomic.Pointer[identity.DeviceList] // the account's; nil: none is known

	disk   dirFiles
	change files // disk, except in tests
	lock   *flock.Flock
	once   sync.Once

	trustMu sync.Mutex        // held while the trust file is written: one writer at a time
	kept    [sha256.Size]byte // of what the trust file says
}

// createFolder makes an account in a folder that is empty, not there yet, or
// in which making one was interrupted.
func createFolder(dir string, opts Options) (*folder, error) {
	return createIn(dir, dirFiles(dir), opts)
}

func createIn(dir string, change files, opts Options) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &folder{dir: dir, disk: dirFiles(dir), change: change}
	if err := f.checkEmpty(); err != nil {
		return nil, err
	}
	// It is empty and ours, so closing it to others takes nothing from anybody.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := f.begin(func() error { return f.create(opts) }); err != nil {
		return nil, err
	}
	return f, nil
}

// begin takes the lock and runs the rest under it; if that fails the lock is
// given back.
func (f *folder) begin(rest func() error) error {
	if err := f.acquire(); err != nil {
		return err
	}
	if err := rest(); err != nil {
		f.close()
		return err
	}
	return nil
}

// checkEmpty tells whether an account may be made here. A folder that holds
// anything else is left alone: it may be another program's, or an account that
// has lost its keys.
func (f *folder) checkEmpty() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	if f.disk.exists(identityFile) {
		return errors.New("there is an account already: open it, or take another folder")
	}
	ours := []string{lockFile, creatingFile}
	if f.disk.exists(creatingFile) {
		ours = append(ours, trustFile, configFile)
	}
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) && !isLeftover(e.Name()) {
			return fmt.Errorf("the folder is not empty: it has %q, and an account is only made where nothing is", e.Name())
		}
	}
	st, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	return checkOwner(f.dir, st)
}

// create writes the files. With identity.pem, the last, the account exists;
// until then creatingFile says that what is there may be thrown away.
func (f *folder) create(opts Options) error {
	if err := errors.Join(f.checkEmpty(), f.disk.sweep()); err != nil { // now that nobody else can be at it
		return err
	}
	var err error
	if f.id, err = opts.identity(); err != nil {
		return err
	}
	keys, err := f.id.Encode()
	if err != nil {
		return err
	}
	f.trust = new(identity.Trust)
	trust, err := f.trust.MarshalText()
	if err != nil {
		return err
	}
	f.kept = sha256.Sum256(trust)
	err = f.write(written{creatingFile, nil}, written{trustFile, trust}, written{configFile, []byte("{}\n")}, written{identityFile, keys})
	if err != nil {
		return err
	}
	return f.change.remove(creatingFile)
}

// written is a file and what it is to have.
type written struct {
	name string
	b    []byte
}

// write replaces files in this order, up to the first that fails.
func (f *folder) write(ws ...written) error {
	for _, w := range ws {
		if err := f.change.replace(w.name, w.b); err != nil {
			return err
		}
	}
	return nil
}

// openFolder opens the account in a folder.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir, disk: dirFiles(dir), change: dirFiles(dir)}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoAccount
	case err != nil:
		return nil, err
	case !st.IsDir():
		return nil, errors.New("it is not a folder")
	}
	if !f.disk.exists(identityFile) {
		return nil, f.missing()
	}
	if err := checkOwner(dir, st); err != nil {
		return nil, err
	}
	if perm := st.Mode().Perm(); enforcePermissions && perm&0o077 != 0 {
		return nil, fmt.Errorf("the folder has mode %04o, so others can get at it: chmod 700 it", perm)
	}
	if err := f.begin(f.load); err != nil {
		return nil, err
	}
	return f, nil
}

// missing tells a folder in which there never was an account from one that has
// lost its keys: over that no new one is ever made.
func (f *folder) missing() error {
	if f.disk.exists(creatingFile) {
		return fmt.Errorf("%w: making it was interrupted; it can be made again", ErrNoAccount)
	}
	for _, name := range []string{trustFile, configFile} {
		if f.disk.exists(name) {
			return fmt.Errorf("%s is missing although %s is there: restore it from a copy, or move the folder away to begin anew", f.disk.path(identityFile), name)
		}
	}
	return ErrNoAccount
}

func (f *folder) load() error {
	if err := f.disk.sweep(); err != nil {
		return err
	}
	keys, err := f.read(identityFile, 0o077, "restore it from a copy; without one the account is lost, and a new one has to be made in another folder")
	if err != nil {
		return err
	}
	if f.id, err = identity.Decode(keys); err != nil {
		return fmt.Errorf("%s is damaged (restore it from a copy: it is never replaced by a new one): %w", f.disk.path(identityFile), err)
	}
	trust, err := f.read(trustFile, 0o022, "restore it from a copy, or bans are lost; to begin without any write the lines “policy allow” and “end” into it")
	if err != nil {
		return err
	}
	f.trust = new(identity.Trust)
	if err := f.trust.UnmarshalText(trust); err != nil {
		return fmt.Errorf("%s: %w", f.disk.path(trustFile), err)
	}
	settings, err := f.read(configFile, 0o022, "restore it from a copy, or write {} into it for the defaults")
	if err != nil {
		return err
	}
	if f.cfg, err = parseConfig(settings); err != nil {
		return fmt.Errorf("%s: %w", f.disk.path(configFile), err)
	}
	if err := f.loadDevices(); err != nil {
		return err
	}
	if trust, err = f.trust.MarshalText(); err != nil { // with what the list tells: it is no reason to write
		return err
	}
	f.kept = sha256.Sum256(trust)
	return f.change.remove(creatingFile) // left where making it died at the last step
}

// read is disk.read with advice for a file that is not there.
func (f *folder) read(name string, mask fs.FileMode, advice string) ([]byte, error) {
	b, err := f.disk.read(name, mask)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: %s", f.disk.path(name), advice)
	}
	return b, err
}

// setTrust decides about a device, an account or an authority. It is on disk
// when this returns; after an error nothing has changed.
func (f *folder) setTrust(who identity.Subject, d identity.Decision) error {
	return f.changeTrust(func(t *identity.Trust) error { return t.Set(who, d) })
}

// changeTrust makes a change on a copy, writes that, and then makes it for
// good: a crash in between loses no decision that somebody was told of.
func (f *folder) changeTrust(change func(*identity.Trust) error) error {
	f.trustMu.Lock()
	defer f.trustMu.Unlock()
	text, err := f.trust.MarshalText()
	if err != nil {
		return err
	}
	var next identity.Trust
	if err := next.UnmarshalText(text); err != nil {
		return err
	}
	if err := change(&next); err != nil {
		return err
	}
	if text, err = next.MarshalText(); err != nil {
		return err
	}
	if err := f.writeTrust(text); err != nil {
		return err
	}
	return change(f.trust)
}

// keepTrust writes what the trust store holds and the file does not: what links have
// shown (identity.Trust.Admit). It reports whether it had to.
func (f *folder) keepTrust() (written bool, err error) {
	f.trustMu.Lock()
	defer f.trustMu.Unlock()
	text, err := f.trust.MarshalText()
	if err != nil || sha256.Sum256(text) == f.kept {
		return false, err
	}
	return true, f.writeTrust(text)
}

// writeTrust replaces the trust file. f.trustMu is held.
func (f *folder) writeTrust(text []byte) error {
	err := f.change.replace(trustFile, text)
	if err == nil {
		f.kept = sha256.Sum256(text)
	}
	return err
}

// acquire takes the lock and notes this process in it, for the error of the
// next one. The lock file is never removed: a process that waits on a removed
// one would share the folder with a process that locked its successor.
func (f *folder) acquire() error {
	path := f.disk.path(lockFile)
	f.lock = flock.New(path, flock.SetPermissions(0o600))
	got, err := f.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if !got {
		return fmt.Errorf("%w: %s", ErrInUse, holder(f.disk))
	}
	// Only a help for people: on a full disk, and on systems where a locked file
	// cannot be written, the lock holds without it.
	_ = os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
	return nil
}

// holder says which process holds the lock, if its file tells.
func holder(d dirFiles) string {
	b, err := d.read(lockFile, 0)
	pid, numErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || numErr != nil || pid <= 0 {
		return "close it first"
	}
	return fmt.Sprintf("process %d; close it first", pid)
}

// close gives the folder free, if there is one. It may be called more than once.
func (f *folder) close() {
	if f.dir == "" {
		return
	}
	f.once.Do(func() {
		_ = os.Truncate(f.disk.path(lockFile), 0) // or the note would outlive the process
		_ = f.lock.Close()
	})
}
