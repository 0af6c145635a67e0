package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"peerlink/identity"
)

// made makes an account that is closed with the test.
func made(t *testing.T, name string) *Account {
	t.Helper()
	acc, err := Create(filepath.Join(t.TempDir(), name), Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = acc.Close() })
	return acc
}

func raw(t *testing.T, l *identity.DeviceList) []byte {
	t.Helper()
	b, err := l.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reopen opens an account again.
func reopen(t *testing.T, acc *Account) *Account {
	t.Helper()
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
	acc, err := Open(acc.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = acc.Close() })
	return acc
}

func TestADeviceComesIntoAnotherAccount(t *testing.T) {
	alice, phone := made(t, "alice"), made(t, "phone")
	before := phone.Identity()
	if err := alice.SetPolicy(identity.RefuseUndecided); err != nil {
		t.Fatal(err)
	}
	chain, list, err := alice.SignDevice(before.Peer(), "alice's phone")
	if err != nil {
		t.Fatal(err)
	}
	if err := phone.Adopt(chain, raw(t, list)); err != nil {
		t.Fatal(err)
	}
	if phone.Identity() != before {
		t.Error("the open account became another one")
	}
	alice, phone = reopen(t, alice), reopen(t, phone)
	me := phone.Identity()
	if me.DeviceID() != before.DeviceID() || me.AccountID() != alice.Identity().AccountID() || me.Name() != "alice's phone" || me.HoldsAccount() {
		t.Errorf("it is %v of account %v", me.Peer(), me.AccountID())
	}
	for name, l := range map[string]*identity.DeviceList{"the new one": phone.Devices(), "the old one": alice.Devices()} {
		if l == nil || len(l.Devices()) != 2 || !l.Has(me.DeviceID()) || !l.Has(alice.Identity().DeviceID()) {
			t.Errorf("%s knows %v", name, l)
		}
	}
	if err := alice.f.trust.Check(me.Peer()); err != nil {
		t.Errorf("its own account does not let it in: %v", err)
	}
	kept, err := os.ReadFile(filepath.Join(phone.Dir(), keptIdentity(before.AccountID())))
	if err != nil {
		t.Fatal(err)
	}
	if old, err := identity.Decode(kept); err != nil || !old.HoldsAccount() || old.AccountID() != before.AccountID() {
		t.Errorf("what it was is lost: %v", err)
	}
	if _, _, err := phone.SignDevice(made(t, "x").Identity().Peer(), "x"); err == nil {
		t.Error("a device without the account's key signed another")
	}
}

// What it had before is never replaced by less.
func TestTheKeyOfAnEarlierAccountStays(t *testing.T) {
	alice, bob, phone := made(t, "alice"), made(t, "bob"), made(t, "phone")
	into := func(acc *Account) {
		t.Helper()
		chain, list, err := acc.SignDevice(phone.Identity().Peer(), "phone")
		if err != nil {
			t.Fatal(err)
		}
		if err := phone.Adopt(chain, raw(t, list)); err != nil {
			t.Fatal(err)
		}
		phone = reopen(t, phone)
	}
	first := phone.Identity().AccountID()
	into(alice)
	into(bob)
	into(alice)
	into(bob)
	b, err := os.ReadFile(filepath.Join(phone.Dir(), keptIdentity(first)))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := identity.Decode(b); err != nil || !id.HoldsAccount() {
		t.Errorf("%v", err)
	}
}

// fault: D2
func TestADeviceAdoptsNothingForeign(t *testing.T) {
	alice, phone, other := made(t, "alice"), made(t, "phone"), made(t, "other")
	chain, list, err := alice.SignDevice(phone.Identity().Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	foreign, others, err := other.SignDevice(phone.Identity().Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	notMine, _, err := alice.SignDevice(other.Identity().Peer(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]func() error{
		"another device's chain":      func() error { return phone.Adopt(notMine, raw(t, list)) },
		"another account's list":      func() error { return phone.Adopt(chain, raw(t, others)) },
		"no list":                     func() error { return phone.Adopt(chain, nil) },
		"a list of the wrong account": func() error { return phone.Adopt(foreign, raw(t, list)) },
	} {
		if err := try(); err == nil {
			t.Errorf("%s was adopted", what)
		}
	}
	if got := names(t, phone.Dir()); len(got) != 4 {
		t.Errorf("left behind: %v", got)
	}
}

func TestDeviceListsAreLearnedInOrder(t *testing.T) {
	alice, phone, tablet := made(t, "alice"), made(t, "phone"), made(t, "tablet")
	chain, first, err := alice.SignDevice(phone.Identity().Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	if err := phone.Adopt(chain, raw(t, first)); err != nil {
		t.Fatal(err)
	}
	phone = reopen(t, phone)
	_, second, err := alice.SignDevice(tablet.Identity().Peer(), "tablet")
	if err != nil || second.Number() <= first.Number() || len(second.Devices()) != 3 {
		t.Fatalf("%v, %v", second, err)
	}
	if changed, err := phone.LearnDevices(second); err != nil || !changed {
		t.Errorf("%v, %v", changed, err)
	}
	if changed, err := phone.LearnDevices(second); err != nil || changed {
		t.Errorf("once more: %v, %v", changed, err)
	}
	if _, err := phone.LearnDevices(first); !errors.Is(err, ErrOutdatedDevices) {
		t.Errorf("an older one: %v", err)
	}
	if _, err := tablet.LearnDevices(second); err == nil {
		t.Error("a list of another account was learned")
	}
	if phone = reopen(t, phone); phone.Devices() == nil || phone.Devices().Number() != second.Number() {
		t.Errorf("after a restart it knows %v", phone.Devices())
	}
}

// fault: D6
func TestARevokedDeviceLeavesTheListForEver(t *testing.T) {
	alice, phone := made(t, "alice"), made(t, "phone")
	_, first, err := alice.SignDevice(phone.Identity().Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Revoke(phone.Identity().DeviceID()); err != nil {
		t.Fatal(err)
	}
	now := alice.Devices()
	if now.Has(phone.Identity().DeviceID()) || now.Number() <= first.Number() || !now.Has(alice.Identity().DeviceID()) {
		t.Errorf("after the revocation: %v", now.Devices())
	}
	if _, _, err := alice.SignDevice(phone.Identity().Peer(), "phone"); err == nil {
		t.Error("a revoked device was signed again")
	}
}

// Coming into an account dies before each of its steps: the device then is whole,
// in the one account or in the other.
//
// fault: I1
func TestAdoptMayDieAtAnyStep(t *testing.T) {
	const steps = 3
	alice := made(t, "alice")
	for lives := range steps + 1 {
		t.Run(fmt.Sprintf("after %d steps", lives), func(t *testing.T) {
			phone := made(t, "phone")
			before := phone.Identity()
			chain, list, err := alice.SignDevice(before.Peer(), "phone")
			if err != nil {
				t.Fatal(err)
			}
			if err := phone.allowOwn(alice.Identity().AccountID()); err != nil {
				t.Fatal(err)
			}
			phone.f.change = &mortal{files: phone.f.disk, lives: lives}
			if err := phone.Adopt(chain, raw(t, list)); (err == nil) != (lives == steps) {
				t.Fatalf("%v", err)
			}
			phone = reopen(t, phone)
			in := phone.Identity().AccountID() == alice.Identity().AccountID()
			if in != (lives == steps) || phone.Identity().DeviceID() != before.DeviceID() || phone.Identity().HoldsAccount() == in {
				t.Errorf("after %d steps it is of account %v", lives, phone.Identity().AccountID())
			}
			if (phone.Devices() != nil) != in {
				t.Errorf("it knows the devices %v", phone.Devices())
			}
			for _, name := range names(t, phone.Dir()) {
				if isLeftover(name) {
					t.Errorf("left behind: %s", name)
				}
			}
		})
	}
}

// fault: I1
func TestADamagedDeviceListIsNamed(t *testing.T) {
	alice := made(t, "alice")
	if _, _, err := alice.SignDevice(made(t, "phone").Identity().Peer(), "phone"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(alice.Dir(), devicesFile)
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(alice.Dir(), Options{}); !errors.Is(err, identity.ErrDeviceList) {
		t.Errorf("%v", err)
	}
}
