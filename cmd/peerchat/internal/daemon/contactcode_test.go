//go:build linux

package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/dht"
	"peerlink/identity"
)

// inviteDeadline bounds what must happen; it is only waited for when a test fails.
const inviteDeadline = time.Minute

// meeting is a place with a node where devices with daemons come about.
type meeting struct {
	t     *testing.T
	local string
	nodes []string
}

func newMeeting(t *testing.T) *meeting {
	t.Helper()
	node, err := dht.Start(t.Context(), dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	local := street(t)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(local))
	return &meeting{t, local, node.Addrs()}
}

// guest is a device with a daemon, and its commands' client.
type guest struct {
	*account.Account
	*control.Client
	d *Daemon
}

func (m *meeting) guest(name string) guest {
	m.t.Helper()
	acc, err := account.Create(filepath.Join(m.t.TempDir(), "account"), account.Options{Name: name, LocalDir: m.local, Bootstrap: m.nodes, Loopback: true})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = acc.Close() })
	if err := acc.Start(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	d, err := New(Config{Account: acc})
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := control.Bind(acc.Dir())
	if err != nil {
		m.t.Fatal(err)
	}
	d.Serve(l)
	m.t.Cleanup(func() { _ = d.Close() })
	return guest{acc, control.NewClient(acc.Dir()), d}
}

func (g guest) id() identity.DeviceID { return g.Identity().DeviceID() }

// heldInvite is an invite as its command sees it.
type heldInvite struct {
	code   codes.Code
	leave  context.CancelFunc
	events chan control.CodeEvent // after the code's; closed at the end
	err    error                  // then
}

// invites makes a code.
func (g guest) invites(t *testing.T, what control.Invite) *heldInvite {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inviteDeadline)
	o := &heldInvite{leave: cancel, events: make(chan control.CodeEvent, 16)}
	first := make(chan control.CodeEvent, 1)
	go func() {
		defer close(o.events)
		defer close(first)
		told := false
		o.err = control.OpInvite.Follow(ctx, g.Client, what, nil, func(e control.CodeEvent) error {
			if !told {
				told = true
				first <- e
				return nil
			}
			o.events <- e
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		for range o.events { //nolint:revive // until it has ended
		}
	})
	e, ok := <-first
	if !ok {
		t.Fatal(o.err)
	}
	code, err := codes.Parse(e.Code)
	if err != nil || e.Step != control.CodeShown || time.Until(e.Until) > codes.Life {
		t.Fatalf("%+v, %v", e, err)
	}
	o.code = code
	return o
}

// last returns the invite's last event.
func (o *heldInvite) last(t *testing.T) (last control.CodeEvent) {
	t.Helper()
	for e := range o.events {
		last = e
	}
	return last
}

func (g guest) accepts(t *testing.T, code codes.Code, name, me string) (met control.Met, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inviteDeadline)
	defer cancel()
	return control.OpAccept.Ask(ctx, g.Client, control.AcceptInvite{Code: code.String(), Name: name, Me: me})
}

func (g guest) named(t *testing.T, name string) identity.DeviceID {
	t.Helper()
	book, err := contacts.Open(filepath.Join(g.Dir(), ContactsFile))
	if err != nil {
		t.Fatal(err)
	}
	id, err := book.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Of two who were told one code, and come at once, one becomes a contact.
func TestACodeMakesOneContact(t *testing.T) {
	m := newMeeting(t)
	alice, bob, carol := m.guest("alice"), m.guest("bob"), m.guest("carol")
	in := alice.invites(t, control.Invite{})
	var wg sync.WaitGroup
	mets, errs := make([]control.Met, 2), make([]error, 2)
	for i, g := range []guest{bob, carol} {
		wg.Go(func() { mets[i], errs[i] = g.accepts(t, in.code, "", "") })
	}
	wg.Wait()
	winner, who := 0, bob
	if errs[0] != nil {
		winner, who = 1, carol
	}
	if errs[winner] != nil || mets[winner] != (control.Met{Name: "alice", Device: alice.id()}) {
		t.Fatalf("%+v, %v", mets[winner], errs[winner])
	}
	if err := errs[1-winner]; err == nil || !strings.Contains(err.Error(), "ask for a new one") {
		t.Errorf("the other one: %v", err)
	}
	used := in.last(t)
	if used.Step != control.CodeUsed || *used.Met != (control.Met{Name: who.Identity().Name(), Device: who.id()}) {
		t.Errorf("%+v", used)
	}
	if alice.named(t, who.Identity().Name()) != who.id() || who.named(t, "alice") != alice.id() {
		t.Error("the books have other devices")
	}
	if alice.Trusted(who.id()) != identity.Allowed || who.Trusted(alice.id()) != identity.Allowed {
		t.Error("who was proven is not allowed")
	}
}

// Invites can only be reached while they are open, and nobody hears of the words.
func TestAnInviteIsReachedOnlyWhileItIsOpen(t *testing.T) {
	m := newMeeting(t)
	alice, bob := m.guest("alice"), m.guest("bob")
	in := alice.invites(t, control.Invite{})
	if id, err := bob.FindInvite(t.Context(), in.code.Number); err != nil || id != alice.id() {
		t.Fatalf("%v, %v", id, err)
	}
	in.leave() // the person has changed their mind
	for range in.events {
		t.Error("an event for nobody")
	}
	ctx, cancel := context.WithTimeout(t.Context(), inviteDeadline)
	defer cancel()
	for { // the daemon notices a moment later
		conn, err := bob.ConnectionManager().ConnectDevice(ctx, alice.id(), codes.Contact.URI(in.code.Number), peerlink.ConnectOptions{})
		if errors.Is(err, peerlink.ErrDeclined) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	if _, err := bob.accepts(t, in.code, "", ""); err == nil || !strings.Contains(err.Error(), "ask for a new one") {
		t.Errorf("%v", err)
	}
}

func TestOnlyAFewInvitesAreOpen(t *testing.T) {
	m := newMeeting(t)
	alice := m.guest("alice")
	numbers := map[int]bool{}
	for range maxOpenInvites {
		numbers[alice.invites(t, control.Invite{}).code.Number] = true
	}
	if len(numbers) != maxOpenInvites {
		t.Errorf("numbers %v", numbers)
	}
	err := control.OpInvite.Follow(t.Context(), alice.Client, control.Invite{}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "4 invites are open") {
		t.Errorf("%v", err)
	}
}

// Eve's device cannot have the number. Under a number that bob takes for alice's it
// has not the words, so it gets a guess and nothing else.
func TestASquatterOnlyMakesItFail(t *testing.T) {
	m := newMeeting(t)
	alice, bob, eve := m.guest("alice"), m.guest("bob"), m.guest("eve")
	in := alice.invites(t, control.Invite{})
	until := time.Now().Add(codes.Life - time.Minute)
	if err := eve.PublishInvite(t.Context(), in.code.Number, until); !errors.Is(err, dht.ErrInviteTaken) {
		t.Errorf("a number that is alice's: %v", err)
	}
	wrong := in.code
	wrong.Number = codes.MaxNumber
	if err := eve.PublishInvite(t.Context(), wrong.Number, until); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.accepts(t, wrong, "", ""); err == nil || !strings.Contains(err.Error(), "ask for a new one") {
		t.Errorf("one who does not answer: %v", err)
	}
	l, err := eve.ConnectionManager().Listen(codes.Contact.URI(wrong.Number))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guessed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			guessed <- err
			return
		}
		defer conn.Close()
		_, err = codes.Prove(t.Context(), conn, codes.Terms{
			Role: codes.Inviter, Purpose: string(codes.Contact), Code: codes.Code{Number: wrong.Number, Words: "a guess"},
			Me: eve.id(), Peer: bob.id(), Guard: codes.NewGuard(),
		})
		guessed <- err
	}()
	if met, err := bob.accepts(t, wrong, "", ""); err == nil || !strings.Contains(err.Error(), "another device pretends") {
		t.Errorf("%+v, %v", met, err)
	}
	if err := <-guessed; !errors.Is(err, codes.ErrWrong) {
		t.Errorf("eve: %v", err)
	}
	if eve.Trusted(bob.id()) != identity.Undecided || bob.Trusted(eve.id()) != identity.Undecided {
		t.Error("a squatter is trusted")
	}
}

// The answer to a proof is lost: the same device comes again and is told again,
// and there is one contact.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	m := newMeeting(t)
	alice, bob := m.guest("alice"), m.guest("bob")
	in := alice.invites(t, control.Invite{Name: "robert"})
	conn, err := bob.ConnectionManager().ConnectDevice(t.Context(), alice.id(), codes.Contact.URI(in.code.Number), peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = codes.Prove(t.Context(), conn, codes.Terms{Role: codes.Joiner, Purpose: string(codes.Contact), Code: in.code, Me: bob.id(), Peer: alice.id()})
	if err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	if err := codes.Introduce(t.Context(), conn, codes.Joiner, "bob", func(string) error { return lost }); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	_ = conn.Close()
	if met, err := bob.accepts(t, in.code, "", ""); err != nil || met.Name != "alice" || met.Known {
		t.Errorf("%+v, %v", met, err)
	}
	if e := in.last(t); e.Step != control.CodeUsed || e.Met.Name != "robert" || e.Met.Unsure {
		t.Errorf("%+v", e)
	}
	if alice.named(t, "robert") != bob.id() {
		t.Error("robert is another device")
	}
}

// fault: B6
func TestASuggestedNameIsAContactsNameAndNobodyElses(t *testing.T) {
	m := newMeeting(t)
	alice := m.guest("alice")
	proven := func() identity.Peer {
		id, err := identity.Generate("guest")
		if err != nil {
			t.Fatal(err)
		}
		return id.Peer()
	}
	for _, c := range []struct{ wanted, suggested, want string }{
		{"", "bob", "bob"},
		{"", "Bob", "Bob 2"},
		{"robert", "bob", "robert"},
		{"Robert", "bob", "Robert 2"}, // it was free when the invite began
		{"", " -@al/ice: ", "al ice"},
		{"", "0123456789abcdef", "guest"}, // looks like a device id: the certificate's name is taken
		{"", "", "guest 2"},
		{"", strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{"", strings.Repeat("X", 64), strings.Repeat("X", 62) + " 2"},
	} {
		peer := proven()
		met, err := alice.d.meet(peer, c.wanted, c.suggested)
		if err != nil || met != (control.Met{Name: c.want, Device: peer.Device}) {
			t.Errorf("%q, %q became %+v, %v; want %q", c.wanted, c.suggested, met, err, c.want)
		}
		if alice.named(t, c.want) != peer.Device || alice.Trusted(peer.Device) != identity.Allowed {
			t.Errorf("%q is not on disk, or not allowed", c.want)
		}
		again, err := alice.d.meet(peer, "another", "name")
		if err != nil || again != (control.Met{Name: c.want, Device: peer.Device, Known: true}) {
			t.Errorf("a contact came again as %+v, %v", again, err)
		}
	}
	banned := proven()
	if err := alice.SetTrust(banned.Device, identity.Banned); err != nil {
		t.Fatal(err)
	}
	if met, err := alice.d.meet(banned, "", "eve"); err == nil || alice.Trusted(banned.Device) != identity.Banned {
		t.Errorf("a code lifted a ban: %+v, %v", met, err)
	}
	if got := suitable("@", identity.Peer{Name: "/", Device: banned.Device}); got != "device "+banned.Device.Short() {
		t.Errorf("nothing usable became %q", got)
	}
}

// Where strangers are refused nobody could come: that is said at once.
func TestAnAccountThatRefusesStrangersHasNoInvites(t *testing.T) {
	m := newMeeting(t)
	alice := m.guest("alice")
	if err := alice.SetPolicy(identity.RefuseUndecided); err != nil {
		t.Fatal(err)
	}
	err := control.OpInvite.Follow(t.Context(), alice.Client, control.Invite{}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "lets only those connect who were allowed") {
		t.Errorf("%v", err)
	}
	if _, err := alice.accepts(t, codes.Code{Number: 7, Words: "amber-mango"}, "", ""); err == nil || !strings.Contains(err.Error(), "lets only those connect who were allowed") {
		t.Errorf("%v", err)
	}
}

func TestACodeOfOnesOwnAndABannedDevice(t *testing.T) {
	m := newMeeting(t)
	alice, bob := m.guest("alice"), m.guest("bob")
	in := alice.invites(t, control.Invite{})
	if _, err := alice.accepts(t, in.code, "", ""); err == nil || !strings.Contains(err.Error(), "own code") {
		t.Errorf("%v", err)
	}
	if err := alice.SetTrust(bob.id(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), inviteDeadline)
	defer cancel()
	_, err := control.OpAccept.Ask(ctx, bob.Client, control.AcceptInvite{Code: in.code.String()})
	if err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if alice.Trusted(bob.id()) != identity.Banned {
		t.Error("a code lifted a ban")
	}
	for _, bad := range []control.AcceptInvite{{Code: "7"}, {Code: in.code.String(), Name: "a@b"}, {Code: in.code.String(), Me: "a\x1b"}} {
		if _, err := control.OpAccept.Ask(ctx, bob.Client, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
