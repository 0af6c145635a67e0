//go:build linux

package daemon

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/life"
)

// revoked reports whether an account knows that a device was revoked.
func revoked(acc *account.Account, h *house) bool {
	return errors.Is(acc.Trust().Check(h.acc.Identity().Peer()), identity.ErrRevoked)
}

// A stranger that holds channels for lists, and a hundred more of its kind, keep
// neither contacts nor the account's own devices from telling theirs.
//
// case: S6
func TestStrangersDoNotTakeThePlacesOfContacts(t *testing.T) {
	alice, laptop, phone, local := family(t)
	eve := open(t, filepath.Join(t.TempDir(), "eve"), local)
	alice.link(t, laptop)
	places := alice.d.devices.places
	var held []*peerlink.Messages
	for range maxTelling {
		sock, err := eve.acc.ConnectionManager().ConnectDevice(t.Context(), alice.id(), devicesURI, peerlink.ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		held = append(held, peerlink.NewMessages(sock))
	}
	taken := 0
	for i := range 100 { // throw-away keys
		if places.TakeStranger(identity.DeviceID{7, byte(i)}) == nil {
			defer places.Release(identity.DeviceID{7, byte(i)})
			taken++
		}
	}
	if taken > maxTelling/2 {
		t.Errorf("strangers have %d places", taken)
	}
	if _, err := control.OpRevoke.Ask(t.Context(), laptop.client, []string{"phone"}); err != nil {
		t.Fatal(err)
	}
	alice.link(t, laptop) // and tells what there is to tell
	if !revoked(alice.acc, phone) {
		t.Error("alice has not heard of it")
	}
	for i, ms := range held { // one may be open; the others were reset
		if err := ms.Send([]byte("PLX9")); err == nil && i == 0 {
			continue
		}
		_, _ = ms.Receive()
	}
}

// case: S6
func TestWhoWasNotToldIsToldLater(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	places := alice.d.devices.places
	tick, timeout := time.NewTicker(time.Millisecond), time.After(within)
	defer tick.Stop()
	for busy := 0; busy < maxOfMember; { // what is under way ends
		if places.Take(laptop.id()) == nil {
			busy++
			continue
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("an exchange does not end")
		}
	}
	did, err := control.OpRevoke.Ask(t.Context(), laptop.client, []string{"phone"})
	if err != nil {
		t.Fatal(err)
	}
	if did.Connected != 1 || did.Told != 0 {
		t.Errorf("%+v, but alice takes no lists now", did)
	}
	heard := func() bool { return revoked(alice.acc, phone) }
	changed := alice.acc.Trust().Changed()
	if heard() {
		t.Fatal("alice has heard of it without a channel")
	}
	for range maxOfMember {
		places.Release(laptop.id())
	}
	for !heard() {
		select {
		case <-changed:
			changed = alice.acc.Trust().Changed()
		case <-timeout:
			t.Fatal("alice has not heard of it")
		}
	}
}

// A contact that makes a link while the daemon starts is taken note of, and told, as one
// that comes later.
//
// case: S6
func TestALinkFromBeforeTheDaemonIsNoEarlier(t *testing.T) {
	alice, laptop, _, local := family(t)
	alice.close(t)
	acc, err := account.Open(alice.acc.Dir(), account.Options{LocalDir: local})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	if err := acc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := acc.ConnectionManager().ConnectDevice(t.Context(), laptop.id(), "nothing://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrNoListener) {
		t.Fatal(err)
	}
	if _, err := control.OpRevoke.Ask(t.Context(), laptop.client, []string{"phone"}); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Account: acc})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for tick, timeout := time.Tick(time.Millisecond), time.After(within); ; {
		c, _ := d.contacts.Find("bob")
		text, _ := acc.Trust().MarshalText()
		if len(acc.Revocations()) == 1 && c.Account == laptop.acc.Identity().AccountID() && strings.Contains(string(text), "home device "+laptop.id().String()) {
			return
		}
		select {
		case <-tick:
		case <-timeout:
			t.Fatalf("%d lists, %+v, in the trust store\n%s", len(acc.Revocations()), c, text)
		}
	}
}

// bare are the devices of a daemon without links.
func bare(t *testing.T, dir string) *devices {
	acc, err := account.Create(dir, account.Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBook(acc)
	if err != nil {
		t.Fatal(err)
	}
	return &devices{
		acc: acc, m: acc.ConnectionManager(), book: b, log: slog.New(slog.DiscardHandler), life: new(life.Group),
		places: exchanges(), telling: exchanges(), lists: newLists(),
		seen: map[identity.DeviceID]time.Time{}, later: map[identity.DeviceID]struct{}{},
	}
}

// case: S23
func TestListsOfOneAccountAreTakenSeldom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	synctest.Test(t, func(t *testing.T) {
		v := bare(t, dir)
		defer v.acc.Close()
		defer v.life.Close()
		bob, carol := someContact(t, v, "bob"), someContact(t, v, "carol")
		number, taken := uint64(0), 0
		say := func(who *identity.Identity, revokes identity.DeviceID) error {
			number++
			l, err := who.RevocationList(number, revokes)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := l.MarshalBinary()
			return v.believe(b, who.Peer())
		}
		for i := range 864 { // in 10 s
			switch err := say(bob, identity.DeviceID{1, byte(i), byte(i >> 8)}); {
			case err == nil:
				taken++
			case !errors.Is(err, errTooSoon):
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second / 864)
		}
		if taken != maxLists {
			t.Errorf("%d of 864 lists are taken in 10 s", taken)
		}
		if err := say(carol, identity.DeviceID{2}); err != nil {
			t.Errorf("another's first list: %v", err)
		}
		time.Sleep(listEvery) // and it is asked again
		last := identity.DeviceID{3}
		if err := say(bob, last); err != nil || v.acc.Trust().Check(identity.Peer{Device: last, Account: bob.AccountID()}) == nil {
			t.Errorf("the newest, a minute later: %v", err)
		}
		if err := say(bob, identity.DeviceID{4}); !errors.Is(err, errTooSoon) {
			t.Errorf("one more in that minute: %v", err)
		}
		// What is held already, or older, costs nothing.
		l, _ := bob.RevocationList(1, identity.DeviceID{5})
		b, _ := l.MarshalBinary()
		for range 100 {
			if err := v.believe(b, bob.Peer()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 * maxLists { // device lists count with the others
			l, err := carol.DeviceList(uint64(i+1), identity.ListedDevice{Device: carol.DeviceID(), Name: "carol"})
			if err != nil {
				t.Fatal(err)
			}
			b, _ := l.MarshalBinary()
			_ = v.believe(b, carol.Peer())
		}
		if c, _ := v.book.OfPeer(carol.Peer()); c.Number == 0 || c.Number > 2*maxLists {
			t.Errorf("carol's list is number %d", c.Number)
		}
	})
}

// What a contact's devices have proven before the trust store noted it counts, too.
//
// case: S1
func TestOldAccountsKnowTheHomesOfTheirContacts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	synctest.Test(t, func(t *testing.T) {
		v := bare(t, dir)
		defer v.acc.Close()
		bob := someContact(t, v, "bob")
		tablet, err := bob.IssueDevice("tablet")
		if err != nil {
			t.Fatal(err)
		}
		if err := v.book.Met(tablet.Peer(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := openBook(v.acc); err != nil { // a trust store without homes
			t.Fatal(err)
		}
		l, err := bob.RevocationList(1, bob.DeviceID(), tablet.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		b, _ := l.MarshalBinary()
		if _, err := v.acc.ImportRevocations(b); err != nil {
			t.Fatal(err)
		}
		for _, id := range []*identity.Identity{bob, tablet} {
			if err := v.acc.Trust().Check(identity.Peer{Device: id.DeviceID(), Account: identity.AccountID{3}}); !errors.Is(err, identity.ErrRevoked) {
				t.Errorf("%s: %v", id.Name(), err)
			}
		}
	})
}

// someContact is a contact whose account is known.
func someContact(t *testing.T, v *devices, name string) *identity.Identity {
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.book.Add(name, id.DeviceID(), time.Now()), v.book.Met(id.Peer(), time.Now())); err != nil {
		t.Fatal(err)
	}
	return id
}
