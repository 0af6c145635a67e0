package carriertest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"peerlink/identity"
)

// Site is where the devices of one test find each other, in several processes: a
// folder, and addresses by device. Its methods may be called concurrently.
type Site struct{ root string }

// NewSite makes a site for devices of a test's own, which ends with the test.
func NewSite(t testing.TB) (*Site, error) {
	s, err := newSite()
	t.Cleanup(s.close)
	return s, err
}

// newSite makes a site of its own.
func newSite() (*Site, error) {
	root, err := os.MkdirTemp("", "ct") // short, as a socket's path must be
	s := &Site{root}
	return s, errors.Join(err, os.Mkdir(s.Dir(), 0o700), os.Mkdir(s.path(""), 0o700))
}

func (s *Site) close() { _ = os.RemoveAll(s.root) }

// Dir returns a folder that belongs to the carrier, for sockets perhaps. Only this
// user may enter it, and its path is short.
func (s *Site) Dir() string { return filepath.Join(s.root, "d") }

func (s *Site) path(name string) string { return filepath.Join(s.root, "a", name) }

// Announce tells an address of a device, in the carrier's own words. A further call
// takes the place of the one before.
func (s *Site) Announce(id identity.DeviceID, addr string) error {
	f, err := os.CreateTemp(s.path(""), "new")
	if err != nil {
		return err
	}
	_, err = f.WriteString(addr)
	return errors.Join(err, f.Close(), os.Rename(f.Name(), s.path(id.String())))
}

// Address returns what Announce was told of a device; "": nothing.
func (s *Site) Address(id identity.DeviceID) string {
	b, _ := os.ReadFile(s.path(id.String())) // without the file nothing was told
	return string(b)
}
