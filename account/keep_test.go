package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"peerlink/identity"
)

// What links show is on disk some seconds later, without a Close, and is not written
// again and again.
//
// case: S1
func TestWhatLinksShowReachesTheDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	synctest.Test(t, func(t *testing.T) {
		acc, err := Create(dir, Options{Name: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		defer acc.Close()
		read := func() *identity.Trust {
			text, err := os.ReadFile(filepath.Join(dir, trustFile))
			if err != nil {
				t.Fatal(err)
			}
			tr := new(identity.Trust)
			if err := tr.UnmarshalText(text); err != nil {
				t.Fatal(err)
			}
			return tr
		}
		for i := range 3 {
			p := identity.Peer{Device: identity.DeviceID{1, byte(i)}, Account: identity.AccountID{2}}
			if err := errors.Join(acc.SetTrust(p.Device, identity.Allowed), acc.Trust().Admit(p)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), keepEvery)
			<-ctx.Done()
			cancel()
			synctest.Wait()
			p.Account = identity.AccountID{3}
			if tr := read(); tr.AtHome(p) {
				t.Errorf("device %d: its account is not on disk", i)
			}
		}
	})
}
