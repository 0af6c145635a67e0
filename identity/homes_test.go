package identity

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// realm is an account, or an authority, that signs lists.
type realm struct {
	key crypto.Signer
	id  AccountID
}

func newRealm(t testing.TB) realm {
	t.Helper()
	key := newEd25519(t)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return realm{key, AccountID(keyID(spki))}
}

// has is a device of the account as a handshake proves it, with the authority above
// the account, if any.
func (r realm) has(d DeviceID, above ...realm) Peer {
	p := Peer{Device: d, Account: r.id}
	for _, ca := range above {
		p.CA = ca.id
	}
	return p
}

// strict is a store that refuses strangers.
func strict(t testing.TB, allowed ...Subject) *Trust {
	t.Helper()
	tr := new(Trust)
	tr.SetPolicy(RefuseUndecided)
	for _, s := range allowed {
		if err := tr.Set(s, Allowed); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func admit(t *testing.T, tr *Trust, p Peer) {
	t.Helper()
	if err := tr.Admit(p); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, tr *Trust, l *RevocationList) {
	t.Helper()
	if err := tr.AddRevocations(l); err != nil {
		t.Fatal(err)
	}
}

// restarted is what a store is after a restart.
func restarted(t testing.TB, tr *Trust) *Trust {
	t.Helper()
	text, err := tr.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	again := new(Trust)
	if err := again.UnmarshalText(text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if back, _ := again.MarshalText(); string(back) != string(text) {
		t.Fatalf("read back:\n%s\nwritten:\n%s", back, text)
	}
	return again
}

// A phone that its account has revoked signs itself into another one: whatever let
// it in before, and before or after it has moved, it is out, also after a restart.
//
// case: S1
func TestARevokedDeviceStaysOutUnderAnotherAccount(t *testing.T) {
	for name, grant := range map[string]func(tr *Trust, p Peer) error{
		"the device was allowed":    func(tr *Trust, p Peer) error { return tr.Set(p.Device, Allowed) },
		"a code was proven":         func(tr *Trust, p Peer) error { return tr.Allow(p) },
		"its account was allowed":   func(tr *Trust, p Peer) error { return tr.Set(p.Account, Allowed) },
		"its authority was allowed": func(tr *Trust, p Peer) error { return tr.Set(p.CA, Allowed) },
		"it is a contact's": func(tr *Trust, p Peer) error {
			tr.SetMembers(func(q Peer) bool { return q.Account == p.Account })
			return nil
		},
		"a rule was for the device": func(tr *Trust, p Peer) error { _ = tr.AtHome(p); return nil },
		"all of these": func(tr *Trust, p Peer) error {
			return errors.Join(tr.Set(p.Device, Allowed), tr.Set(p.Account, Allowed), tr.Set(p.CA, Allowed))
		},
		"it was allowed, banned, allowed": func(tr *Trust, p Peer) error {
			return errors.Join(tr.Set(p.Device, Allowed), tr.Set(p.Device, Banned), tr.Set(p.Device, Allowed))
		},
		"it was allowed before it was seen": func(tr *Trust, p Peer) error { return tr.Allow(Peer{Device: p.Device, Account: p.Account}) },
	} {
		for by, above := range map[string]bool{"by its account": false, "by its authority": true} {
			t.Run(name+", "+by, func(t *testing.T) {
				old, work, ca := newRealm(t), newRealm(t), newRealm(t)
				tr, phone := new(Trust), old.has(someDevice(1), ca)
				if err := grant(tr, phone); err != nil {
					t.Fatal(err)
				}
				admit(t, tr, phone)
				issuer := old
				if above {
					issuer = ca
				}
				for _, tr := range []*Trust{tr, restarted(t, tr)} {
					admit(t, tr, work.has(someDevice(1))) // as a stranger, until it is revoked
					take(t, tr, revoke(t, issuer.key, 1, someDevice(1)))
					for _, tr := range []*Trust{tr, restarted(t, tr)} {
						for _, p := range []Peer{phone, old.has(someDevice(1)), work.has(someDevice(1)), work.has(someDevice(1), newRealm(t))} {
							if err := errors.Join(tr.Check(p), tr.Admit(p)); !errors.Is(err, ErrRevoked) || tr.Member(p) || tr.AtHome(p) {
								t.Errorf("%v: %v", p, err)
							}
						}
						if err := tr.Check(work.has(someDevice(2))); err != nil {
							t.Errorf("another device of the account where it went: %v", err)
						}
					}
				}
			})
		}
	}
}

// case: S1
func TestAGrantIsForTheAccountOfTheFirstProof(t *testing.T) {
	old, work := newRealm(t), newRealm(t)
	d := someDevice(1)
	tr := strict(t, d)
	if err := tr.Check(work.has(d)); err != nil {
		t.Errorf("a claim has bound the device: %v", err)
	}
	admit(t, tr, old.has(d))
	for _, tr := range []*Trust{tr, restarted(t, tr)} {
		var moved *MovedError
		err := tr.Admit(work.has(d))
		if !errors.As(err, &moved) || *moved != (MovedError{d, old.id, work.id}) || !errors.Is(err, ErrMoved) || !errors.Is(err, ErrNotTrusted) || errors.Is(err, ErrBanned) {
			t.Errorf("another account: %v", err)
		}
		if tr.Member(work.has(d)) || tr.AtHome(work.has(d)) || !tr.Member(old.has(d)) || !tr.AtHome(old.has(d)) {
			t.Error("the grant went along")
		}
		tr.SetPolicy(AllowUndecided)
		if err := tr.Admit(work.has(d)); err != nil || tr.Member(work.has(d)) || tr.AtHome(work.has(d)) {
			t.Errorf("where strangers are let in: %v", err)
		}
	}
	// What the owner says anew binds anew; lists of the old account count on.
	again := restarted(t, tr)
	if err := again.Set(d, Allowed); err != nil {
		t.Fatal(err)
	}
	admit(t, again, work.has(d))
	again.SetPolicy(RefuseUndecided)
	if !again.Member(work.has(d)) || again.Check(old.has(d)) == nil {
		t.Error("the owner's decision does not count")
	}
	again = restarted(t, again)
	take(t, again, revoke(t, old.key, 1, d))
	if err := again.Check(work.has(d)); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked by the old account: %v", err)
	}
	if err := errors.Join(again.Set(d, Undecided), again.Set(d, Allowed), again.Admit(work.has(d))); err != nil {
		t.Errorf("after it was forgotten: %v", err)
	}
}

// case: S1
func TestOfTwoLinksUnderTwoAccountsOneWins(t *testing.T) {
	one, other := newRealm(t), newRealm(t)
	tr := strict(t, someDevice(1))
	if err := errors.Join(tr.Check(one.has(someDevice(1))), tr.Check(other.has(someDevice(1)))); err != nil {
		t.Fatal(err) // both handshakes
	}
	changed := tr.Changed()
	admit(t, tr, other.has(someDevice(1)))
	select {
	case <-changed:
	default:
		t.Error("live links are not asked about again")
	}
	if tr.Admit(one.has(someDevice(1))) == nil {
		t.Error("both are in")
	}
	changed = tr.Changed()
	admit(t, tr, other.has(someDevice(1)))
	select {
	case <-changed:
		t.Error("nothing new is told as a change, so that it would be asked for ever")
	default:
	}
}

// An account, or an authority, that never was a device's home cannot revoke it, and
// neither can one that a stranger shows above an account.
//
// case: S1
func TestOnlyHomesRevoke(t *testing.T) {
	home, eve, d := newRealm(t), newRealm(t), someDevice(1)
	tr := strict(t, d, home.id, eve.id)
	admit(t, tr, home.has(d))
	admit(t, tr, eve.has(someDevice(2)))
	if tr.Admit(eve.has(someDevice(3), newRealm(t))) != nil {
		t.Error("an account with an authority is refused")
	}
	take(t, tr, revoke(t, eve.key, 1, d, home.id))
	if err := tr.Check(home.has(d)); err != nil {
		t.Errorf("revoked by an account that is not its own: %v", err)
	}
	// A stolen device of the account shows an authority of the thief's above it.
	thief := newRealm(t)
	admit(t, tr, home.has(someDevice(4), thief))
	take(t, tr, revoke(t, thief.key, 1, home.id, d))
	for _, tr := range []*Trust{tr, restarted(t, tr)} {
		if err := tr.Check(home.has(d)); err != nil {
			t.Errorf("the thief has revoked the others: %v", err)
		}
		if tr.Check(home.has(someDevice(4))) == nil {
			t.Error("its own list does not count for the thief")
		}
	}
}

// case: S1
func TestAnAccountThatLeavesItsAuthorityOutIsStillBelowIt(t *testing.T) {
	for name, grant := range map[string]func(a, ca realm) Subject{
		"the account is allowed":   func(a, _ realm) Subject { return a.id },
		"the authority is allowed": func(_, ca realm) Subject { return ca.id },
	} {
		t.Run(name, func(t *testing.T) {
			a, ca := newRealm(t), newRealm(t)
			tr := strict(t, grant(a, ca))
			admit(t, tr, a.has(someDevice(1), ca))
			tr.SetPolicy(AllowUndecided)
			for _, who := range []Subject{a.id, someDevice(2)} {
				tr := restarted(t, tr)
				admit(t, tr, a.has(someDevice(2)))
				take(t, tr, revoke(t, ca.key, 1, who))
				if err := tr.Check(a.has(someDevice(2))); !errors.Is(err, ErrRevoked) {
					t.Errorf("%v is revoked: %v", who, err)
				}
			}
		})
	}
}

// case: S1
func TestABanOfAnAccountHoldsForADeviceThatLeavesIt(t *testing.T) {
	a, b, d := newRealm(t), newRealm(t), someDevice(1)
	tr := new(Trust)
	if err := errors.Join(tr.Set(d, Allowed), tr.Admit(a.has(d)), tr.Set(a.id, Banned)); err != nil {
		t.Fatal(err)
	}
	if err := tr.Check(b.has(d)); !errors.Is(err, ErrBanned) {
		t.Error(err)
	}
	if err := errors.Join(tr.Set(d, Allowed), tr.Admit(b.has(d))); err != nil || !tr.Member(b.has(d)) {
		t.Errorf("allowed anew: %v", err)
	}
}

// case: S1
func TestHomesAreBounded(t *testing.T) {
	tr, d := strict(t, someDevice(1)), someDevice(1)
	homes := make([]realm, maxHomes+1)
	for i := range homes {
		homes[i] = newRealm(t)
		_ = tr.Set(d, Allowed) // it has moved
		err := tr.Admit(homes[i].has(d))
		if (err == nil) != (i < maxHomes) || err != nil && !errors.Is(err, ErrNotTrusted) {
			t.Fatalf("account %d: %v", i, err)
		}
	}
	if err := tr.Allow(homes[maxHomes].has(d)); err == nil {
		t.Error("a code of a device with too many accounts is taken")
	}
	tr = restarted(t, tr)
	for _, h := range homes[:maxHomes] {
		tr := restarted(t, tr)
		take(t, tr, revoke(t, h.key, 1, d))
		if tr.Check(homes[0].has(d)) == nil {
			t.Error("a home was forgotten")
		}
	}
	a := newRealm(t)
	tr = strict(t, a.id, someDevice(200))
	for i := range 3 * maxGuests {
		admit(t, tr, a.has(DeviceID{9, byte(i), byte(i >> 8)}))
	}
	if n := len(tr.homes); n != maxGuests+1 { // the account is one more
		t.Errorf("%d homes are remembered", n)
	}
	admit(t, tr, a.has(someDevice(200)))
	if _, held := tr.homes[someDevice(200).subject()]; !held {
		t.Error("there is no room left for a device that is allowed itself")
	}
	ca := newRealm(t)
	tr = strict(t, ca.id)
	for i := range 3 * maxBelow {
		admit(t, tr, Peer{Device: DeviceID{9, byte(i), byte(i >> 8)}, Account: AccountID{8, byte(i), byte(i >> 8)}, CA: ca.id})
	}
	if n := len(tr.homes); n != 2*maxBelow {
		t.Errorf("%d devices and accounts of one authority are remembered", n)
	}
}

// Old stores have no homes: what they allow binds with the next proof.
//
// case: S1
func TestHomesAsText(t *testing.T) {
	a, b, c, d := AccountID{1}.String(), AccountID{2}.String(), AccountID{3}.String(), someDevice(1)
	var tr Trust
	good := fmt.Sprintf("policy allow\nallowed device %s\nhome device %s %s/%s %s\nhome account %s %s/%s\npast device %s %s\nend\n", d, d, a, c, b, a, a, c, someDevice(2), a)
	if err := tr.UnmarshalText([]byte(good)); err != nil || tr.inHomes != 4 {
		t.Fatalf("%v, %d homes", err, tr.inHomes)
	}
	restarted(t, &tr)
	for _, bad := range []string{
		"home", "home device", "home device " + d.String(), "home devise " + d.String() + " " + a, "homes device " + d.String() + " " + a,
		"home device x " + a, "home device " + d.String() + " x", "home device " + d.String() + " " + a + "/", "home device " + d.String() + " " + a + "/" + b + "/" + c,
		"home device " + d.String() + " /" + a, "home device " + d.String() + " " + a + " " + a, "home account " + a + " " + b + "/" + c,
		"home device " + d.String() + strings.Repeat(" 0", maxHomes+1), "allowed device " + d.String() + " " + a,
		"home device " + d.String() + " " + a + "\nhome device " + d.String() + " " + b,
	} {
		var again Trust
		err := again.UnmarshalText([]byte("policy allow\n" + bad + "\nend\n"))
		if err == nil || !strings.Contains(err.Error(), "line ") || len(err.Error()) > 600 {
			t.Errorf("%.200q: %v", bad, err)
		}
	}
}
