package account

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"

	"peerlink/identity"
)

// The files of an account.
const (
	identityFile = "identity.pem"
	configFile   = "config.json"
	trustFile    = "trust"
	lockFile     = "lock"
)

// maxFile bounds what is read of any of them, in bytes.
const maxFile = 32 << 20

var (
	// ErrNoAccount is matched when the folder has no account.
	ErrNoAccount = errors.New("no account here")
	// ErrInUse is matched when another process uses the account.
	ErrInUse = errors.New("another process uses the account")
)

// Config are an account's settings, as in config.json. The zero value of each
// field is its default.
type Config struct {
	// Bootstrap are multiaddresses of nodes of the DHT to begin with. None: the
	// device is reached over direct TCP only.
	Bootstrap []string `json:"bootstrap,omitempty"`
	// DHTListen are multiaddresses to serve the DHT on, for a device that is
	// publicly reachable. None: it is a client.
	DHTListen []string `json:"dht_listen,omitempty"`
	// Listen are HOST:PORT to take direct TCP connections on. None: none.
	Listen []string `json:"listen,omitempty"`
	// Peers are the HOST:PORT under which devices take direct TCP connections.
	Peers map[identity.DeviceID][]string `json:"peers,omitempty"`
	// Engines are those of ICE, in order of preference: "tcp", "udp". None: both.
	Engines []string `json:"engines,omitempty"`
	// Loopback offers loopback addresses to peers too.
	Loopback bool `json:"loopback,omitempty"`
}

// folder is an account on disk, locked.
type folder struct {
	dir   string
	lock  *flock.Flock
	id    *identity.Identity
	trust *identity.Trust
	cfg   Config
}

// createFolder makes an account in a folder that is empty or not there yet.
func createFolder(dir, name string, cfg Config) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &folder{dir: dir}
	if err := f.acquire(); err != nil {
		return nil, err
	}
	err := f.create(name, cfg)
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) create(name string, cfg Config) error {
	es, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.Name() != lockFile {
			return fmt.Errorf("the folder is not empty: it has %q, and an account is only made where nothing is", e.Name())
		}
	}
	if f.id, err = identity.Generate(name); err != nil {
		return err
	}
	pem, err := f.id.Encode()
	if err != nil {
		return err
	}
	f.trust, f.cfg = new(identity.Trust), cfg
	if err := f.saveTrust(); err != nil {
		return err
	}
	if err := f.saveConfig(); err != nil {
		return err
	}
	return f.write(identityFile, pem) // last: with it the account exists
}

// openFolder opens the account in a folder.
func openFolder(dir string) (*folder, error) {
	if _, err := os.Stat(filepath.Join(dir, identityFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, missing(dir)
	}
	f := &folder{dir: dir}
	if err := f.acquire(); err != nil {
		return nil, err
	}
	if err := f.load(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// missing tells a folder without an account from one that has lost its keys.
func missing(dir string) error {
	for _, name := range []string{trustFile, configFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s is missing although %s is there: restore it from a copy, or move the folder away to begin anew", identityFile, name)
		}
	}
	return ErrNoAccount
}

func (f *folder) load() error {
	pem, err := f.read(identityFile)
	if err != nil {
		return err
	}
	if err := f.checkSecret(identityFile); err != nil {
		return err
	}
	if f.id, err = identity.Decode(pem); err != nil {
		return fmt.Errorf("%s is damaged (restore it from a copy; it is not replaced): %w", f.path(identityFile), err)
	}
	f.trust = new(identity.Trust)
	for name, into := range map[string]encoding.TextUnmarshaler{trustFile: f.trust, configFile: &f.cfg} {
		b, err := f.read(name)
		if err != nil {
			return err
		}
		if err := into.UnmarshalText(b); err != nil {
			return fmt.Errorf("%s: %w", f.path(name), err)
		}
	}
	return nil
}

// checkSecret refuses a key file that others can read.
func (f *folder) checkSecret(name string) error {
	st, err := os.Stat(f.path(name))
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o): if nobody has, chmod 600 it; else make a new account", f.path(name), st.Mode().Perm())
	}
	return nil
}

// UnmarshalText reads config.json. Unknown keys are errors with their line.
func (c *Config) UnmarshalText(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	type plain Config
	var p plain
	if err := dec.Decode(&p); err != nil {
		return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:min(int(dec.InputOffset()), len(b))], []byte("\n")), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("line %d: there is more after the settings", 1+bytes.Count(b[:dec.InputOffset()], []byte("\n")))
	}
	*c = Config(p)
	return nil
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) read(name string) ([]byte, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", f.path(name), maxFile)
	}
	return b, err
}

// write replaces a file whole.
func (f *folder) write(name string, b []byte) error {
	if err := renameio.WriteFile(f.path(name), b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", f.path(name), err)
	}
	return nil
}

func (f *folder) saveTrust() error {
	b, err := f.trust.MarshalText()
	if err != nil {
		return err
	}
	return f.write(trustFile, b)
}

func (f *folder) saveConfig() error {
	b, err := json.MarshalIndent(f.cfg, "", "  ")
	if err != nil {
		return err
	}
	return f.write(configFile, append(b, '\n'))
}

// acquire takes the lock and notes this process in it.
func (f *folder) acquire() error {
	f.lock = flock.New(f.path(lockFile), flock.SetPermissions(0o600))
	got, err := f.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.path(lockFile), err)
	}
	if !got {
		b, _ := f.read(lockFile)
		return fmt.Errorf("%w: process %.20q", ErrInUse, strings.TrimSpace(string(b)))
	}
	return os.WriteFile(f.path(lockFile), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
}

func (f *folder) close() { _ = f.lock.Close() }
