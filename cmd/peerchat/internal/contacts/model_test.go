package contacts

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"peerlink/identity"
)

const (
	modelAccounts = 3
	modelDevices  = 3
)

// rights are a trust store and a book as a daemon has them, beside a model of what was
// said of whom and what has been proven.
type rights struct {
	trust    *identity.Trust
	book     *Book
	accounts []someone
	lists    [modelAccounts]uint64 // the numbers of the accounts' newest lists

	policy   identity.Policy
	said     map[identity.Subject]identity.Decision
	revoked  map[identity.AccountID]map[identity.DeviceID]bool // by the newest list that was taken
	homes    map[identity.DeviceID]map[identity.AccountID]bool // proven while something was granted, and not forgotten
	bound    map[identity.DeviceID]identity.AccountID          // the home that the grant is for; zero: none yet
	contacts map[identity.DeviceID]identity.AccountID          // those added with it, and their accounts; zero: none yet
}

func newRights(t *rapid.T, path string, accounts []someone) *rights {
	r := &rights{
		trust: new(identity.Trust), accounts: accounts,
		said: map[identity.Subject]identity.Decision{}, revoked: map[identity.AccountID]map[identity.DeviceID]bool{},
		homes: map[identity.DeviceID]map[identity.AccountID]bool{}, bound: map[identity.DeviceID]identity.AccountID{},
		contacts: map[identity.DeviceID]identity.AccountID{},
	}
	r.open(t, path)
	return r
}

func (r *rights) open(t *rapid.T, path string) {
	var err error
	if r.book, err = Open(path); err != nil {
		t.Fatal(err)
	}
	r.trust.SetMembers(r.contact)
}

// contact is what the daemon has for SetMembers.
func (r *rights) contact(p identity.Peer) bool { _, ok := r.book.OfPeer(p); return ok }

func (r *rights) must(t *rapid.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (r *rights) device(t *rapid.T) identity.DeviceID {
	return device(rapid.IntRange(0, modelDevices-1).Draw(t, "device"))
}

func (r *rights) account(t *rapid.T) (int, identity.AccountID) {
	i := rapid.IntRange(0, modelAccounts-1).Draw(t, "account")
	return i, r.accounts[i].account
}

// granted is what the model says of a claim: whether something is granted to it, and
// whether it is by a decision.
func (r *rights) granted(p identity.Peer) (something, decided bool) {
	home := r.bound[p.Device].IsZero() || r.bound[p.Device] == p.Account
	decided = r.said[p.Account] == identity.Allowed || r.said[p.Device] == identity.Allowed && home
	return decided || r.contact(p), decided
}

// out is whether the model refuses a claim, whatever the policy.
func (r *rights) out(p identity.Peer) bool {
	for a := range r.homes[p.Device] {
		if r.revoked[a][p.Device] {
			return true
		}
	}
	banned := func(s identity.Subject) bool { return r.said[s] == identity.Banned }
	return r.revoked[p.Account][p.Device] || banned(p.Device) || banned(p.Account) || banned(r.bound[p.Device])
}

// actions are what can happen, in any order.
func (r *rights) actions(path string) map[string]func(*rapid.T) {
	decide := func(d identity.Decision) func(t *rapid.T) {
		return func(t *rapid.T) {
			dev := r.device(t)
			r.must(t, r.trust.Set(dev, d))
			r.said[dev] = d
			switch d {
			case identity.Allowed:
				delete(r.bound, dev)
			case identity.Undecided:
				delete(r.bound, dev)
				delete(r.homes, dev)
			}
		}
	}
	return map[string]func(*rapid.T){
		"grant": decide(identity.Allowed), "ban": decide(identity.Banned), "forget": decide(identity.Undecided),
		"decide about an account": func(t *rapid.T) {
			_, a := r.account(t)
			d := rapid.SampledFrom([]identity.Decision{identity.Allowed, identity.Banned, identity.Undecided}).Draw(t, "decision")
			r.must(t, r.trust.Set(a, d))
			r.said[a] = d
		},
		"prove a code": func(t *rapid.T) {
			_, a := r.account(t)
			p := identity.Peer{Device: r.device(t), Account: a}
			r.must(t, r.trust.Allow(p))
			r.said[p.Device] = identity.Allowed
			r.note(p)
			r.bound[p.Device] = a
		},
		"link": r.link, // a device may be in any account at any time: whoever has it adopts
		"revoke": func(t *rapid.T) {
			i, a := r.account(t)
			var who []identity.Subject
			r.revoked[a] = map[identity.DeviceID]bool{}
			for n := range modelDevices {
				if rapid.Bool().Draw(t, "revoked") {
					who = append(who, device(n))
					r.revoked[a][device(n)] = true
				}
			}
			r.lists[i]++
			l, err := r.accounts[i].id.RevocationList(r.lists[i], who...)
			r.must(t, err)
			r.must(t, r.trust.AddRevocations(l))
		},
		"policy": func(t *rapid.T) {
			r.policy = identity.Policy(rapid.IntRange(0, 1).Draw(t, "policy"))
			r.trust.SetPolicy(r.policy)
		},
		"add a contact": func(t *rapid.T) {
			dev := r.device(t)
			if _, held := r.book.Of(dev); held {
				return
			}
			r.must(t, r.book.Add("contact "+dev.String()[10:16]+".", dev, aDay))
			r.contacts[dev] = identity.AccountID{}
		},
		"the contact has moved": func(t *rapid.T) {
			_, a := r.account(t)
			dev := r.device(t)
			if _, is := r.contacts[dev]; is {
				r.must(t, r.book.Follow(dev.String(), a))
				r.contacts[dev] = a
			}
		},
		"restart": func(t *rapid.T) {
			text, err := r.trust.MarshalText()
			r.must(t, err)
			r.trust = new(identity.Trust)
			r.must(t, r.trust.UnmarshalText(text))
			r.open(t, path)
		},
		"": r.check,
	}
}

// note has the model remember a home.
func (r *rights) note(p identity.Peer) {
	if r.homes[p.Device] == nil {
		r.homes[p.Device] = map[identity.AccountID]bool{}
	}
	r.homes[p.Device][p.Account] = true
	if r.bound[p.Device].IsZero() {
		r.bound[p.Device] = p.Account
	}
}

func (r *rights) link(t *rapid.T) {
	_, a := r.account(t)
	p := identity.Peer{Device: r.device(t), Account: a, Name: "x"}
	something, _ := r.granted(p)
	if r.trust.Admit(p) != nil {
		return
	}
	if something {
		r.note(p)
	}
	r.must(t, r.book.Met(p, aDay))
	if at, is := r.contacts[p.Device]; is && at.IsZero() {
		r.contacts[p.Device] = a
	}
}

// check says what must hold.
func (r *rights) check(t *rapid.T) {
	for n := range modelDevices {
		for _, s := range r.accounts {
			p := identity.Peer{Device: device(n), Account: s.account}
			err := r.trust.Check(p)
			something, decided := r.granted(p)
			// In is who is not out, and known where strangers are refused.
			if in := !r.out(p) && (decided || r.policy == identity.AllowUndecided); in != (err == nil) {
				t.Fatalf("device %d of account %v: %v, want it in: %v", n, s.account.Short(), err, in)
			}
			// Room is kept for who is in and was granted something as what it comes now.
			if r.trust.Member(p) != (err == nil && something) {
				t.Fatalf("device %d of account %v: member %v, granted %v, %v", n, s.account.Short(), r.trust.Member(p), something, err)
			}
			// A contact's device is one that comes under the contact's account.
			if home, is := r.contacts[p.Device]; is {
				c, ok := r.book.OfPeer(p)
				mine := ok && c.Device == p.Device
				if mine != (home.IsZero() || home == s.account) && (!ok || c.Account != s.account) {
					t.Fatalf("device %d of account %v is a contact's: %v, whose account is %v", n, s.account.Short(), mine, home.Short())
				}
			}
		}
	}
	for _, c := range r.book.List() {
		if c.Lives() != r.contacts[c.Device] {
			t.Fatalf("%v lives under %v, and nobody said so: it was %v", c.Name, c.Lives().Short(), r.contacts[c.Device].Short())
		}
	}
}

// Rights and their withdrawal use one key, whatever happens in which order.
//
// case: S1
func TestRightsModel(t *testing.T) {
	var accounts []someone
	for range modelAccounts {
		accounts = append(accounts, newSomeone(t))
	}
	dir, runs := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		path := filepath.Join(dir, strconv.Itoa(runs))
		r := newRights(t, path, accounts)
		t.Repeat(r.actions(path))
	})
}
