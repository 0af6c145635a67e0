//go:build linux

package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// stolen is a phone of bob's that alice has as a contact, with rules and with rights,
// and which is signed into another account.
type stolen struct {
	alice, laptop, phone *house
	addr                 forward.Address // alice's rule lets bob dial it
}

// change asks alice's daemon for a change of her contacts.
func (s *stolen) change(do string) error {
	_, err := control.OpContacts.Ask(s.alice.d.life.Context(), s.alice.client, control.ContactChange{Do: do, Who: "bob"})
	return err
}

func newStolen(t *testing.T, policy identity.Policy) *stolen {
	t.Helper()
	local, dir := street(t), t.TempDir()
	s := &stolen{alice: open(t, filepath.Join(dir, "alice"), local), laptop: open(t, filepath.Join(dir, "laptop"), local)}
	s.phone = open(t, filepath.Join(dir, "phone"), local).into(t, s.laptop, local)
	s.alice.add(t, "bob", s.phone.id())
	if err := s.change("allow"); err != nil {
		t.Fatal(err)
	}
	s.alice.link(t, s.phone)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if s.addr, err = forward.ParseAddress(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	rule := control.ForwardChange{Do: "allow", Who: "bob", May: forward.DoDial, Addr: s.addr.Addr}
	if _, err := control.OpForwards.Ask(t.Context(), s.alice.client, rule); err != nil {
		t.Fatal(err)
	}
	if err := s.alice.acc.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	thief := open(t, filepath.Join(dir, "thief"), local)
	s.phone = s.phone.into(t, thief, local)
	return s
}

// rights returns what the phone may do at alice's; an error says that there is no link.
func (s *stolen) rights(t *testing.T) (rights []string, err error) {
	t.Helper()
	m, me := s.phone.acc.ConnectionManager(), s.phone.acc.Identity().Peer()
	c, err := m.ConnectDevice(t.Context(), s.alice.id(), forward.URIDial, peerlink.ConnectOptions{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if forward.Dial(t.Context(), c, s.addr) == nil {
		rights = append(rights, "forward")
	}
	if m, err := m.ConnectDevice(t.Context(), s.alice.id(), chat.URI, peerlink.ConnectOptions{}); err == nil {
		rights = append(rights, "chat")
		_ = m.Close()
	}
	if s.alice.d.mayOpen(control.Listen{From: []identity.DeviceID{s.phone.id()}}, me) {
		rights = append(rights, "--from")
	}
	if _, ok := s.alice.d.contacts.OfPeer(me); ok {
		rights = append(rights, "name")
	}
	if s.alice.acc.Trust().Member(me) {
		rights = append(rights, "room")
	}
	for l := range s.alice.acc.ConnectionManager().Links() {
		if l.Peer.Device == s.phone.id() && s.alice.d.link(l).Contact != "" {
			rights = append(rights, "status")
		}
	}
	return rights, nil
}

const allRights = "forward chat --from name room status"

// case: S1
func TestAStolenPhoneLosesItsRightsWithItsAccount(t *testing.T) {
	for name, policy := range map[string]identity.Policy{"strangers are refused": identity.RefuseUndecided, "strangers are let in": identity.AllowUndecided} {
		t.Run(name, func(t *testing.T) {
			s := newStolen(t, policy)
			refused := policy == identity.RefuseUndecided
			if rights, err := s.rights(t); len(rights) > 0 || (err != nil) != refused {
				t.Errorf("it may %v, %v", rights, err)
			}
			// What is written or sent to bob does not reach it.
			_, err := s.alice.client.Connect(t.Context(), control.Connect{Device: s.phone.id(), URI: devicesURI, Any: true})
			if !errors.Is(err, identity.ErrMoved) || !refused && !strings.Contains(err.Error(), "bob") {
				t.Errorf("a call to bob: %v", err)
			}
			if _, err := s.alice.client.Connect(t.Context(), control.Connect{Device: s.phone.id(), URI: devicesURI}); !errors.Is(err, identity.ErrMoved) {
				t.Errorf("a call to bob's device: %v", err)
			}
			if _, err := s.alice.d.connectAny(t.Context(), s.phone.id(), devicesURI, peerlink.ConnectOptions{}); !errors.Is(err, identity.ErrNotTrusted) {
				t.Errorf("a call to bob: %v", err)
			}
			all, err := control.OpContacts.Ask(t.Context(), s.alice.client, control.ContactChange{})
			if err != nil || all.Contacts[0].Account != s.laptop.acc.Identity().AccountID().String() {
				t.Errorf("bob has moved: %+v, %v", all, err)
			}
			if moved := all.Contacts[0].Moved; !refused && moved != s.phone.acc.Identity().AccountID().String() {
				t.Errorf("alice is not told: %+v", all)
			}
			if err := s.change("allow"); (err != nil) == refused {
				t.Errorf("allowed again without a word about the move: %v", err)
			}
			if rights, _ := s.rights(t); len(rights) > 0 {
				t.Errorf("allowed, but not moved, it may %v", rights)
			}
			l, err := s.laptop.acc.Identity().RevocationList(1, s.phone.id())
			if err != nil {
				t.Fatal(err)
			}
			b, _ := l.MarshalBinary()
			held, err := s.phone.acc.ConnectionManager().ConnectDevice(t.Context(), s.alice.id(), forward.URIDial, peerlink.ConnectOptions{})
			if (err != nil) != refused {
				t.Fatal(err)
			}
			if _, err := s.alice.acc.ImportRevocations(b); err != nil {
				t.Fatal(err)
			}
			if held != nil {
				_ = held.SetReadDeadline(time.Now().Add(within))
				if _, err := held.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("the link of a revoked device is open: %v", err)
				}
			}
			if rights, err := s.rights(t); err == nil {
				t.Errorf("revoked, it is in, and may %v", rights)
			}
			s.alice.close(t)
			s.alice = open(t, s.alice.acc.Dir(), "off")
			if err := s.alice.acc.Trust().Check(s.phone.acc.Identity().Peer()); !errors.Is(err, identity.ErrRevoked) {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

// A phone that bob himself has signed into another account has its rights back once
// alice says so, and not before.
//
// case: S1
func TestAContactMovesWhenItsOwnerSaysSo(t *testing.T) {
	for name, policy := range map[string]identity.Policy{"strangers are refused": identity.RefuseUndecided, "strangers are let in": identity.AllowUndecided} {
		t.Run(name, func(t *testing.T) {
			s := newStolen(t, policy)
			if policy == identity.AllowUndecided {
				if err := s.change("moved"); err == nil {
					t.Error("nothing has moved")
				}
			}
			if rights, _ := s.rights(t); len(rights) > 0 {
				t.Errorf("it may %v", rights)
			}
			if err := s.change("moved"); err != nil {
				t.Fatal(err)
			}
			s.alice.link(t, s.phone)
			if rights, err := s.rights(t); strings.Join(rights, " ") != allRights {
				t.Errorf("it may %v, %v", rights, err)
			}
			if c, _ := s.alice.d.contacts.Find("bob"); c.Account != s.phone.acc.Identity().AccountID() {
				t.Errorf("%+v", c)
			}
			if s.alice.acc.Trust().Member(s.laptop.acc.Identity().Peer()) {
				t.Error("the account that bob has left is still allowed")
			}
		})
	}
}

// A device that was a contact before it came into one's own account still is.
//
// case: S1
func TestAContactFollowsIntoOnesOwnAccount(t *testing.T) {
	local, dir := street(t), t.TempDir()
	laptop, phone := open(t, filepath.Join(dir, "laptop"), local), open(t, filepath.Join(dir, "phone"), local)
	laptop.add(t, "phone", phone.id())
	laptop.link(t, phone)
	phone = phone.into(t, laptop, local)
	c, err := laptop.client.Connect(t.Context(), control.Connect{Device: phone.id(), URI: devicesURI, Any: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if c, _ := laptop.d.contacts.Find("phone"); c.Account != laptop.acc.Identity().AccountID() {
		t.Errorf("%+v", c)
	}
}
