//go:build linux

package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// house is an account that runs, with its daemon.
type house struct {
	acc    *account.Account
	d      *Daemon
	client *control.Client
}

func (h *house) id() identity.DeviceID { return h.acc.Identity().DeviceID() }

// close ends both, before the test does.
func (h *house) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(h.d.Close(), h.acc.Close()); err != nil {
		t.Error(err)
	}
}

// street is where devices of one machine meet in a test. Its path is short: those of
// sockets are bounded.
func street(t *testing.T) string {
	t.Helper()
	run, err := os.MkdirTemp("", "run") // with mode 0700
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	return filepath.Join(run, "local")
}

// open starts the account of a folder, which it makes if need be.
func open(t *testing.T, dir, local string) *house {
	t.Helper()
	opts := account.Options{Name: filepath.Base(dir), LocalDir: local}
	acc, err := account.Open(dir, opts)
	if errors.Is(err, account.ErrNoAccount) {
		acc, err = account.Create(dir, opts)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = acc.Close() })
	if err := acc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Account: acc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	l, c := control.Inside()
	d.Serve(l)
	return &house{acc, d, c}
}

// into makes a device one of an account, and starts it anew.
func (h *house) into(t *testing.T, owner *house, local string) *house {
	t.Helper()
	chain, list, err := owner.acc.SignDevice(h.acc.Identity().Peer(), h.acc.Identity().Name())
	if err != nil {
		t.Fatal(err)
	}
	b, _ := list.MarshalBinary()
	if err := h.acc.Adopt(chain, b); err != nil {
		t.Fatal(err)
	}
	h.close(t)
	return open(t, h.acc.Dir(), local)
}

func (h *house) add(t *testing.T, name string, id identity.DeviceID) {
	t.Helper()
	if err := h.d.contacts.Add(name, id, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// link makes a link to a device and waits until both have told the other what
// there is to tell.
func (h *house) link(t *testing.T, to *house) {
	t.Helper()
	sock, err := h.acc.ConnectionManager().ConnectDevice(t.Context(), to.id(), devicesURI, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	peer, _ := peerlink.PeerOf(sock)
	h.d.devices.met(peer, time.Now()) // the event of it may come later
	to.d.devices.met(h.acc.Identity().Peer(), time.Now())
	if err := h.d.devices.exchange(sock); err != nil {
		t.Fatal(err)
	}
}

// family is alice, and bob with a laptop, which holds the account's key, and a
// phone. They know each other; alice has not heard of the phone.
func family(t *testing.T) (alice, laptop, phone *house, local string) {
	t.Helper()
	local = street(t)
	dir := t.TempDir()
	alice, laptop = open(t, filepath.Join(dir, "alice"), local), open(t, filepath.Join(dir, "laptop"), local)
	phone = open(t, filepath.Join(dir, "phone"), local).into(t, laptop, local)
	alice.add(t, "bob", laptop.id())
	laptop.add(t, "alice", alice.id())
	phone.add(t, "alice", alice.id())
	return alice, laptop, phone, local
}

func TestAContactsDevicesAreLearnedFromOneOfThem(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	c, err := alice.d.contacts.Find("bob")
	if err != nil || c.Account != laptop.acc.Identity().AccountID() || len(c.Devices) != 2 {
		t.Fatalf("alice knows %+v, %v", c, err)
	}
	if alice.d.contacts.NameOf(phone.id()) != "bob" {
		t.Error("bob's phone is nobody's")
	}
	if c, _ := laptop.d.contacts.Find("alice"); len(c.Devices) != 1 || c.Number != 0 {
		t.Errorf("bob knows %+v", c)
	}
}

// Who is no contact is not told which devices there are, and believed in nothing.
func TestStrangersLearnNoDevices(t *testing.T) {
	alice, laptop, _, _ := family(t)
	if _, err := laptop.d.contacts.Remove("alice"); err != nil {
		t.Fatal(err)
	}
	alice.link(t, laptop)
	if c, _ := alice.d.contacts.Find("bob"); len(c.Devices) != 1 || c.Number != 0 {
		t.Errorf("a stranger knows %+v", c)
	}
	l, err := alice.acc.Revoke(identity.DeviceID{1})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := l.MarshalBinary()
	if err := laptop.d.devices.believe(b, alice.acc.Identity().Peer()); err != nil || len(laptop.acc.Revocations()) != 0 {
		t.Errorf("a stranger's revocations: %v, %v", laptop.acc.Revocations(), err)
	}
}

// fault: D6
func TestListsOfOthersAccountsAreRefused(t *testing.T) {
	alice, laptop, _, local := family(t)
	eve := open(t, filepath.Join(t.TempDir(), "eve"), local)
	alice.add(t, "eve", eve.id())
	alice.link(t, laptop)
	alice.link(t, eve)
	mine, err := laptop.acc.Revoke(identity.DeviceID{1})
	if err != nil {
		t.Fatal(err)
	}
	list, _ := laptop.acc.Devices().MarshalBinary()
	rev, _ := mine.MarshalBinary()
	for what, b := range map[string][]byte{
		"another's devices": list, "another's revocations": rev, "damaged": list[:len(list)-1], "damaged revocations": rev[:40], "endless": make([]byte, maxListLen+1),
	} {
		if err := alice.d.devices.believe(b, eve.acc.Identity().Peer()); err == nil {
			t.Errorf("%s was taken from eve", what)
		}
	}
	for what, b := range map[string][]byte{"nothing": nil, "something newer": []byte("PLX9 what will be"), "short": []byte("PL")} {
		if err := alice.d.devices.believe(b, eve.acc.Identity().Peer()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(alice.acc.Revocations()) != 0 {
		t.Error("eve has revoked a device of bob's")
	}
}

// fault: D6
func TestARevokedDeviceIsCutOffAtItsContacts(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	alice.link(t, phone)
	l, err := phone.acc.ConnectionManager().Listen("test://*")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock, err := alice.acc.ConnectionManager().ConnectDevice(t.Context(), phone.id(), "test://x", peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	did, err := control.OpRevoke.Ask(t.Context(), laptop.client, []string{"phone"})
	if err != nil {
		t.Fatal(err)
	}
	if len(did.Devices) != 1 || did.Devices[0] != phone.id() || did.Told < 1 || did.Told > did.Connected {
		t.Errorf("%+v", did)
	}
	if _, err := sock.Read(make([]byte, 1)); err == nil || err == io.EOF { // alice has the list already: nothing is waited for
		t.Errorf("the channel to a revoked device ended with %v", err)
	}
	if _, err := alice.acc.ConnectionManager().ConnectDevice(t.Context(), phone.id(), "test://x", peerlink.ConnectOptions{}); err == nil {
		t.Error("a revoked device was called")
	}
	if c, _ := alice.d.contacts.Find("bob"); len(c.Known()) != 1 || c.Known()[0].Device != laptop.id() {
		t.Errorf("alice knows %+v", c)
	}
	own, err := control.OpDevices.Ask(t.Context(), laptop.client, control.None{})
	if err != nil {
		t.Fatal(err)
	}
	if len(own.Devices) != 2 || !own.Devices[0].This || !own.Devices[0].Signs || !own.Devices[1].Revoked || own.Devices[1].Device != phone.id() {
		t.Errorf("bob has %+v", own)
	}
}

func TestACallGoesToTheDeviceThatListens(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	call := func() (identity.DeviceID, error) {
		c, err := alice.client.Connect(t.Context(), control.Connect{Device: laptop.id(), URI: "test://x", Any: true})
		if err != nil {
			return identity.DeviceID{}, err
		}
		p, _ := peerlink.PeerOf(c)
		_ = c.Reset(channel.CodeUser) // nobody takes it there
		return p.Device, c.Close()
	}
	if to, err := call(); !errors.Is(err, peerlink.ErrDeclined) {
		t.Errorf("nobody listens: %v, %v", to, err)
	}
	there, err := phone.client.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if to, err := call(); err != nil || to != phone.id() {
		t.Errorf("the phone listens: %v, %v", to, err)
	}
	here, err := laptop.client.Listen(t.Context(), "test://*")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if to, err := call(); err != nil || to != laptop.id() && to != phone.id() {
		t.Errorf("both listen: %v, %v", to, err)
	}
	laptop.close(t)
	if to, err := call(); err != nil || to != phone.id() {
		t.Errorf("the laptop has gone: %v, %v", to, err)
	}
	if _, err := alice.client.Connect(t.Context(), control.Connect{Device: laptop.id(), URI: "test://x"}); err == nil {
		t.Error("a call of one device went to another")
	}
}

// What a contact may forward, each of its devices may, once it is known to be one.
//
// fault: H8
func TestARuleForAContactHoldsForItsDevices(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, err := forward.ParseAddress(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	rule := control.ForwardChange{Do: "allow", Who: "bob", May: forward.DoDial, Addr: addr.Addr}
	if _, err := control.OpForwards.Ask(t.Context(), alice.client, rule); err != nil {
		t.Fatal(err)
	}
	dial := func() (*channel.Socket, error) {
		c, err := phone.acc.ConnectionManager().ConnectDevice(t.Context(), alice.id(), forward.URIDial, peerlink.ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, forward.Dial(t.Context(), c, addr)
	}
	if _, err := dial(); err == nil {
		t.Fatal("a device of which nothing is known was let in")
	}
	alice.link(t, laptop) // whose account it is, and so whose the phone is
	c, err := dial()
	if err != nil {
		t.Fatalf("another device of the contact: %v", err)
	}
	if _, err := control.OpContacts.Ask(t.Context(), alice.client, control.ContactChange{Do: "remove", Who: "bob"}); err != nil {
		t.Fatal(err)
	}
	var reset *channel.ResetError
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &reset) {
		t.Errorf("after the contact was removed: %v", err)
	}
	if _, err := dial(); err == nil {
		t.Error("after the contact was removed it was let in")
	}
}

// fault: D6
func TestABannedContactIsBannedWithAllItsDevices(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	decide := func(do, who string) {
		t.Helper()
		if _, err := control.OpContacts.Ask(t.Context(), alice.client, control.ContactChange{Do: do, Who: who}); err != nil {
			t.Fatal(err)
		}
	}
	reach := func(h *house) error {
		_, err := alice.acc.ConnectionManager().ConnectDevice(t.Context(), h.id(), devicesURI, peerlink.ConnectOptions{})
		return err
	}
	decide("ban", "bob")
	if reach(laptop) == nil || reach(phone) == nil {
		t.Error("a device of a banned contact was reached")
	}
	decide("forget", "bob")
	if err := errors.Join(reach(laptop), reach(phone)); err != nil {
		t.Error(err)
	}
	decide("ban", laptop.id().String()) // the one device only
	if reach(laptop) == nil || reach(phone) != nil {
		t.Error("a ban of one device")
	}
}

// A message goes to the first device that takes it, once; what any of them says
// stands in the one conversation.
func TestMessagesGoToOneOfAContactsDevices(t *testing.T) {
	alice, laptop, phone, _ := family(t)
	alice.link(t, laptop)
	phone.link(t, alice)
	laptop.close(t)
	ctx := t.Context()
	news := alice.d.talk.service.Events(ctx)
	theirs := phone.d.talk.service.Events(ctx)
	if _, err := control.OpSay.Ask(ctx, alice.client, control.Say{To: laptop.id(), Text: "where are you?"}); err != nil {
		t.Fatal(err)
	}
	for delivered := false; !delivered; {
		m := receive(t, news)
		if m.Peer != laptop.id() {
			t.Errorf("another conversation: %+v", m)
		}
		delivered = m.Mark.String() == "delivered"
	}
	if e := receive(t, theirs); e.Text != "where are you?" || e.Peer != alice.id() {
		t.Errorf("the phone got %+v", e)
	}
	if _, err := control.OpSay.Ask(ctx, phone.client, control.Say{To: alice.id(), Text: "on my way"}); err != nil {
		t.Fatal(err)
	}
	if e := receive(t, news); e.Peer != laptop.id() || e.Text != "on my way" || e.Mine {
		t.Errorf("alice got %+v", e)
	}
}
