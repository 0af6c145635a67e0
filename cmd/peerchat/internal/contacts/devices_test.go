package contacts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
)

// someone is an account whose devices prove themselves.
type someone struct {
	id      *identity.Identity
	account identity.AccountID
}

func newSomeone(t testing.TB) someone {
	t.Helper()
	id, err := identity.Generate("first")
	if err != nil {
		t.Fatal(err)
	}
	return someone{id, id.AccountID()}
}

// peer is a device of the account's, as a handshake would have proven it.
func (s someone) peer(id identity.DeviceID, name string) identity.Peer {
	return identity.Peer{Device: id, Account: s.account, Name: name}
}

func (s someone) list(t testing.TB, number uint64, ids ...identity.DeviceID) *identity.DeviceList {
	t.Helper()
	var ds []identity.ListedDevice
	for i, id := range ids {
		ds = append(ds, identity.ListedDevice{Device: id, Name: fmt.Sprintf("device %d", i)})
	}
	l, err := s.id.DeviceList(number, ds...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newBook(t testing.TB, names ...string) *Book {
	t.Helper()
	b, err := Open(filepath.Join(t.TempDir(), "contacts.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if err := b.Add(name, device(i), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func met1(t *testing.T, b *Book, p identity.Peer, at time.Time) {
	t.Helper()
	if err := b.Met(p, at); err != nil {
		t.Fatal(err)
	}
}

func ids(c Contact) (out []identity.DeviceID) {
	for _, d := range c.Known() {
		out = append(out, d.Device)
	}
	return out
}

var aDay = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestAContactLearnsItsAccountAndItsDevices(t *testing.T) {
	b, bob := newBook(t, "bob", "carol"), newSomeone(t)
	if c, err := b.Find("BOB"); err != nil || len(ids(c)) != 1 || ids(c)[0] != device(0) || !c.LastSeen().IsZero() {
		t.Fatalf("a new contact: %+v, %v", c, err)
	}
	met1(t, b, bob.peer(device(0), "laptop"), aDay)
	met1(t, b, bob.peer(device(7), "phone"), aDay.Add(time.Hour)) // its chain alone says whose it is
	again, err := Open(b.list.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Book{b, again} {
		c, err := b.Find(device(0).String())
		if err != nil || c.Account != bob.account || fmt.Sprint(ids(c)) != fmt.Sprint([]identity.DeviceID{device(0), device(7)}) || !c.LastSeen().Equal(aDay.Add(time.Hour)) {
			t.Errorf("%+v, %v", c, err)
		}
		if b.NameOf(device(7)) != "bob" || b.NameOf(device(9)) != "" {
			t.Error("the second device is nobody's")
		}
		if c, ok := b.OfPeer(bob.peer(device(9), "new")); !ok || c.Name != "bob" {
			t.Error("a device that proves the account is nobody's")
		}
		if id, err := b.Resolve("bob"); err != nil || id != device(0) {
			t.Errorf("bob's conversation moved to %v, %v", id, err)
		}
	}
	if err := b.Add("phone", device(7), aDay); !errors.Is(err, ErrTaken) {
		t.Errorf("bob's phone as another contact: %v", err)
	}
}

func TestADeviceListTakesThePlaceOfAnOlderOneOnly(t *testing.T) {
	b, bob := newBook(t, "bob"), newSomeone(t)
	met1(t, b, bob.peer(device(0), "laptop"), aDay)
	learn := func(l *identity.DeviceList, want bool) {
		t.Helper()
		if changed, err := b.Learn(l); err != nil || changed != want {
			t.Errorf("%v: %v, %v", l, changed, err)
		}
	}
	learn(bob.list(t, 5, device(0), device(1), device(2)), true)
	learn(bob.list(t, 5, device(0)), false)
	learn(bob.list(t, 4, device(0)), false)
	learn(newSomeone(t).list(t, 9, device(0)), false)
	c, _ := b.Find("bob")
	if len(c.Devices) != 3 || c.Number != 5 || !c.LastSeen().Equal(aDay) {
		t.Errorf("%+v", c)
	}
	learn(bob.list(t, 6, device(1), device(2)), true) // the first device was revoked: it is called no more
	c, _ = b.Find("bob")
	if len(ids(c)) != 2 || ids(c)[0] != device(1) || c.Device != device(0) {
		t.Errorf("%+v", c)
	}
}

// Only a key proves an account, and what another one proves changes nothing.
func TestNobodyBecomesAContactsDeviceWithoutItsAccount(t *testing.T) {
	b, bob, eve := newBook(t, "bob"), newSomeone(t), newSomeone(t)
	met1(t, b, bob.peer(device(0), "laptop"), aDay)
	met1(t, b, eve.peer(device(6), "bob's phone"), aDay)
	met1(t, b, identity.Peer{Device: device(6)}, aDay)
	if changed, err := b.Learn(eve.list(t, 99, device(6))); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if c, _ := b.Find("bob"); len(ids(c)) != 1 || c.Account != bob.account {
		t.Errorf("%+v", c)
	}
	if b.NameOf(device(6)) != "" {
		t.Error("a stranger is called bob")
	}
}

// A device that comes under another account is not its contact's there: neither its
// name nor what is granted by that goes along, until its owner says so. As another
// device of a contact's it just leaves.
//
// case: S1
func TestAContactDoesNotMoveSilently(t *testing.T) {
	b, bob, work := newBook(t, "bob", "work"), newSomeone(t), newSomeone(t)
	met1(t, b, bob.peer(device(0), "laptop"), aDay)
	met1(t, b, bob.peer(device(5), "phone"), aDay)
	met1(t, b, work.peer(device(5), "phone"), aDay)
	if c, _ := b.Find("bob"); len(c.Devices) != 1 {
		t.Errorf("the phone stayed: %+v", c)
	}
	stays := func(b *Book) {
		t.Helper()
		met1(t, b, work.peer(device(0), "laptop"), aDay)
		if c, _ := b.Find("bob"); c.Account != bob.account || c.Is(work.peer(device(0), "")) {
			t.Errorf("it moved: %+v", c)
		}
		if c, ok := b.OfPeer(work.peer(device(0), "laptop")); ok {
			t.Errorf("it is %q's", c.Name)
		}
		if c, ok := b.OfPeer(bob.peer(device(0), "laptop")); !ok || c.Name != "bob" {
			t.Error("bob's laptop is nobody's")
		}
	}
	stays(b)
	if !b.Shown(work.peer(device(0), "laptop")) || b.Shown(work.peer(device(0), "laptop")) || b.MovedTo(device(0)) != work.account {
		t.Error("nobody sees it")
	}
	again, err := Open(b.list.Path)
	if err != nil {
		t.Fatal(err)
	}
	stays(again)
	if !b.Shown(bob.peer(device(0), "laptop")) || !b.MovedTo(device(0)).IsZero() {
		t.Error("it has come back, and nobody sees it")
	}
	if err := b.Follow("bob", work.account); err != nil {
		t.Fatal(err)
	}
	met1(t, b, work.peer(device(0), "laptop"), aDay)
	if c, _ := b.Find("bob"); c.Account != work.account || len(c.Devices) != 1 {
		t.Errorf("%+v", c)
	}
	met1(t, b, work.peer(device(1), "desk"), aDay) // a second contact of that account
	if c, _ := b.Find("work"); !c.Account.IsZero() || c.Home != work.account || len(ids(c)) != 1 || ids(c)[0] != device(1) {
		t.Errorf("two contacts name one account: %+v", c)
	}
	if again, err = Open(b.list.Path); err != nil {
		t.Fatal(err)
	}
	met1(t, again, bob.peer(device(1), "desk"), aDay)
	if c, ok := again.OfPeer(bob.peer(device(1), "desk")); ok {
		t.Errorf("a contact whose account another one names moved: %+v", c)
	}
	if _, err := again.Remove("bob"); err != nil {
		t.Fatal(err)
	}
	met1(t, again, work.peer(device(1), "desk"), aDay)
	if c, _ := again.Find("work"); c.Account != work.account || !c.Home.IsZero() {
		t.Errorf("the account that nobody names any more: %+v", c)
	}
	if err := again.Follow("work", identity.AccountID{}); err != nil {
		t.Fatal(err)
	}
	met1(t, again, bob.peer(device(1), "desk"), aDay)
	if c, _ := again.Find("work"); c.Account != bob.account {
		t.Errorf("moved to the account that is proven next: %+v", c)
	}
}

// A contact's devices cause what is written of them, and must not keep the disk busy.
//
// case: S23
func TestWhatLinksShowIsSeldomWritten(t *testing.T) {
	b, bob := newBook(t, "bob", "carol"), newSomeone(t)
	onDisk := func() string {
		text, err := os.ReadFile(b.list.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	writes, text := 0, onDisk()
	note := func() {
		if now := onDisk(); now != text {
			writes, text = writes+1, now
		}
	}
	at := aDay
	for i := range 300 {
		at = at.Add(time.Second)
		met1(t, b, bob.peer(device(0), fmt.Sprint("name ", i)), at)
		note()
	}
	if most := 1 + writesAtOnce + 300/60 + 1; writes < 2 || writes > most {
		t.Errorf("%d writes, want 2 to %d", writes, most)
	}
	if c, _ := b.Find("bob"); c.Devices[0].Name != "name 299" {
		t.Errorf("the newest is not known: %+v", c)
	}
	met1(t, b, newSomeone(t).peer(device(1), "carol's"), at)
	if note(); !strings.Contains(text, "carol's") || !strings.Contains(text, "name 299") {
		t.Error("another contact's account waits for bob")
	}
}

// What was written before contacts had several devices is read as it was, and
// stays as it was until something is learned.
func TestOldBooksAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contacts.json")
	old := `{
  "contacts": [
    {
      "name": "bob",
      "device": "` + device(0).String() + `",
      "added": "2026-01-02T03:04:05Z"
    },
    {
      "name": "carol",
      "device": "` + device(1).String() + `",
      "added": "2026-01-02T03:04:06Z"
    }
  ]
}
`
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Rename("carol", "dora"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != strings.Replace(old, "carol", "dora", 1) {
		t.Errorf("it became %s, %v", text, err)
	}
}

// fault: H6
func TestDamagedDevicesAreRefused(t *testing.T) {
	bob := newSomeone(t)
	one := `{"device": "` + device(3).String() + `"}`
	many := strings.TrimSuffix(strings.Repeat(one+",", identity.MaxDevices+1), ",")
	for what, rest := range map[string]string{
		"devices of no account": `"devices": [` + one + `]`,
		"a list of no account":  `"list": 3`,
		"twice the same":        `"account": "` + bob.account.String() + `", "devices": [` + one + `,` + one + `]`,
		"too many":              `"account": "` + bob.account.String() + `", "devices": [` + many + `]`,
		"no id":                 `"account": "` + bob.account.String() + `", "devices": [{"name": "x"}]`,
		"a hostile name":        `"account": "` + bob.account.String() + `", "devices": [{"device": "` + device(3).String() + `", "name": "\u001b[2J"}]`,
		"a number too high":     `"account": "` + bob.account.String() + `", "list": 18446744073709551615`,
	} {
		if es, err := parse([]byte(`{"contacts": [{"name": "bob", "device": "` + device(0).String() + `", "added": "2026-01-02T03:04:05Z", ` + rest + `}]}`)); err == nil {
			t.Errorf("%s: %+v", what, es)
		}
	}
}

// fault: J1
func TestDevicesOfContactsAreBounded(t *testing.T) {
	b, bob := newBook(t, "bob"), newSomeone(t)
	for i := range 2 * identity.MaxDevices {
		met1(t, b, bob.peer(device(i), "d"), aDay)
	}
	if c, _ := b.Find("bob"); len(c.Devices) != identity.MaxDevices {
		t.Errorf("%d devices", len(c.Devices))
	}
	full := newBook(t, "bob")
	met1(t, full, bob.peer(device(0), "laptop"), aDay)
	n := maxKnown
	for i := 0; n > 0; i++ {
		c := Contact{Name: fmt.Sprintf("contact-%d", i), Device: device(1<<20 + i), Account: identity.AccountID{1, byte(i), byte(i >> 8)}}
		for j := range min(n, identity.MaxDevices) {
			c.Devices = append(c.Devices, Device{Device: device(1<<24 + 64*i + j)})
		}
		n -= len(c.Devices)
		_ = full.list.Change(func(es []Contact) ([]Contact, bool, error) { return append(slices.Clone(es), c), false, nil })
	}
	if _, err := full.Learn(bob.list(t, 1, device(0), device(1), device(2))); err == nil {
		t.Errorf("%d devices are held", known(full.list.All()))
	}
	if err := full.Met(bob.peer(device(9), "phone"), aDay); err == nil {
		t.Errorf("%d devices are held", known(full.list.All()))
	}
}
