package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestS80_DecisionFollowsTheWholeChain(t *testing.T) {
	f := newFamily(t)
	p, err := VerifyChain(ders(f.device, f.account, f.ca), certNow)
	if err != nil {
		t.Fatal(err)
	}
	var other AccountID
	other[0] = 1
	type set struct {
		s Subject
		d Decision
	}
	for _, tt := range []struct {
		name    string
		sets    []set
		strict  bool // what RefuseUndecided says
		lenient bool // what AllowUndecided says
	}{
		{"nothing decided", nil, false, true},
		{"device allowed", []set{{p.Device, Allowed}}, true, true},
		{"account allowed", []set{{p.Account, Allowed}}, true, true},
		{"authority allowed", []set{{p.CA, Allowed}}, true, true},
		{"someone else allowed", []set{{other, Allowed}}, false, true},
		{"someone else banned", []set{{other, Banned}}, false, true},
		{"device banned", []set{{p.Device, Banned}}, false, false},
		{"account banned", []set{{p.Account, Banned}}, false, false},
		{"authority banned", []set{{p.CA, Banned}}, false, false},
		{"device banned, account and authority allowed", []set{{p.Device, Banned}, {p.Account, Allowed}, {p.CA, Allowed}}, false, false},
		{"authority banned, device allowed", []set{{p.CA, Banned}, {p.Device, Allowed}}, false, false},
		{"device banned, then forgotten", []set{{p.Device, Banned}, {p.Device, Undecided}}, false, true},
		{"authority banned, then allowed", []set{{p.CA, Banned}, {p.CA, Allowed}}, true, true},
		{"account's id banned as a device", []set{{DeviceID(p.Account), Banned}}, false, true},
		{"device's id banned as an account", []set{{AccountID(p.Device), Banned}}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tr Trust
			for _, s := range tt.sets {
				if err := tr.Set(s.s, s.d); err != nil {
					t.Fatal(err)
				}
				if got := tr.Decision(s.s); got != s.d {
					t.Errorf("Decision: %v, want %v", got, s.d)
				}
			}
			for policy, want := range map[Policy]bool{AllowUndecided: tt.lenient, RefuseUndecided: tt.strict} {
				tr.SetPolicy(policy)
				if err := tr.Check(p); (err == nil) != want || (err != nil && !errors.Is(err, ErrNotTrusted)) {
					t.Errorf("policy %d: %v", policy, err)
				}
			}
		})
	}
}

func TestCheckSaysWhoIsTheReason(t *testing.T) {
	p := generate(t, "bob").Peer()
	var tr Trust
	for _, s := range []Subject{p.Device, p.Account} {
		tr.Set(s, Banned)
		if err := tr.Check(p); !errors.Is(err, ErrBanned) || errors.Is(err, ErrRevoked) || !errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), s.String()) {
			t.Errorf("%v: want %s in it", err, s)
		}
		tr.Set(s, Undecided)
	}
	tr.SetPolicy(RefuseUndecided)
	if err := tr.Check(p); err == nil || errors.Is(err, ErrBanned) || !strings.Contains(err.Error(), p.Device.String()) || !strings.Contains(err.Error(), p.Account.String()) {
		t.Errorf("stranger: %v", err)
	}
}

func TestNilAndZeroTrustLetEverybodyIn(t *testing.T) {
	p := generate(t, "bob").Peer()
	var none *Trust
	if err := errors.Join(none.Check(p), new(Trust).Check(p)); err != nil {
		t.Error(err)
	}
	// The zero id names nobody: banning it must not ban those without authority.
	var tr Trust
	tr.Set(AccountID{}, Banned)
	if err := tr.Check(p); err != nil {
		t.Errorf("the zero id was banned: %v", err)
	}
}

func TestChangedIsClosedAtEachChange(t *testing.T) {
	var tr Trust
	id := generate(t, "bob").DeviceID()
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"ban", func() error { return tr.Set(id, Banned) }, true},
		{"the same ban", func() error { return tr.Set(id, Banned) }, false},
		{"policy", func() error { tr.SetPolicy(RefuseUndecided); return nil }, true},
		{"the same policy", func() error { tr.SetPolicy(RefuseUndecided); return nil }, false},
		{"forgotten", func() error { return tr.Set(id, Undecided) }, true},
		{"never decided", func() error { return tr.Set(AccountID(id), Undecided) }, false},
		{"loaded", func() error { return tr.UnmarshalText([]byte("policy allow\nend\n")) }, true},
		{"refused text", func() error { _ = tr.UnmarshalText([]byte("policy")); return nil }, false},
	} {
		c := tr.Changed()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if closed(c) != step.want {
			t.Errorf("%s: changed %v, want %v", step.name, !step.want, step.want)
		}
	}
}

func TestTrustIsBounded(t *testing.T) {
	var tr Trust
	tr.entries = make(map[subject]Decision, maxDecisions)
	for i := range maxDecisions {
		tr.entries[subject{"device", [idLen]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}}] = Banned
	}
	if err := tr.Set(AccountID{2}, Banned); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("one too many: %v", err)
	}
	held := DeviceID{1}
	if err := errors.Join(tr.Set(held, Allowed), tr.Set(held, Undecided), tr.Set(AccountID{2}, Banned)); err != nil {
		t.Errorf("changing what is held: %v", err)
	}
	text, err := tr.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Trust).UnmarshalText(text); err != nil {
		t.Errorf("a full store cannot be read back: %v", err)
	}
	more := bytes.Replace(text, []byte("end\n"), fmt.Appendf(nil, "banned device %s\nend\n", DeviceID{3}), 1)
	if err := new(Trust).UnmarshalText(more); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a store that is too large: %v", err)
	}
}

func TestTrustTextRoundTrip(t *testing.T) {
	bob, carol := generate(t, "bob"), generate(t, "carol")
	var tr Trust
	tr.SetPolicy(RefuseUndecided)
	tr.Set(bob.DeviceID(), Allowed)
	tr.Set(bob.AccountID(), Banned)
	tr.Set(carol.DeviceID(), Banned)
	text, err := tr.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"allowed device " + bob.DeviceID().String(), "banned account " + bob.AccountID().String(), "banned device " + carol.DeviceID().String()}
	slices.Sort(want)
	if got := strings.Split(string(text), "\n"); !slices.Equal(got, slices.Concat([]string{"policy refuse"}, want, []string{"end", ""})) {
		t.Errorf("text %q", text)
	}
	for name, b := range map[string][]byte{
		"as written": text,
		"CRLF":       bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
		"comments":   []byte("# mine\n\n" + strings.ReplaceAll(string(text), "banned", "  banned")),
	} {
		var got Trust
		if err := got.UnmarshalText(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if again, _ := got.MarshalText(); !bytes.Equal(again, text) {
			t.Errorf("%s: became %q", name, again)
		}
	}
}

// A damaged file is refused with its line, and what was decided before holds.
//
// fault: D6, H6
func TestDamagedTrustTextIsRefusedWithItsLine(t *testing.T) {
	bob := generate(t, "bob")
	d, a := bob.DeviceID().String(), bob.AccountID().String()
	for name, tt := range map[string]struct{ text, want string }{
		"empty":             {"", "line 1"},
		"only an end":       {"end\n", "line 1"},
		"only a policy":     {"policy refuse\n", "line 2: the rest is cut off"},
		"cut at a line":     {"policy allow\nallowed device " + d + "\n", "line 3: the rest is cut off"},
		"cut in a line":     {"policy allow\nbanned device " + d[:40], "line 2"},
		"cut in the end":    {"policy allow\nen", "line 2"},
		"no policy":         {"banned device " + d + "\nend\n", "line 1"},
		"policy twice":      {"policy refuse\npolicy allow\nend\n", "line 2"},
		"unknown policy":    {"policy maybe\nend\n", "line 1"},
		"unknown decision":  {"policy allow\nbaned device " + d + "\nend\n", "line 2"},
		"unknown subject":   {"policy allow\nbanned devise " + d + "\nend\n", "line 2"},
		"short id":          {"policy allow\n\nbanned device " + d[1:] + "\nend\n", "line 3"},
		"zero id":           {"policy allow\nbanned device " + strings.Repeat("0", 64) + "\nend\n", "line 2"},
		"trailing word":     {"policy allow\nbanned device " + d + " x\nend\n", "line 2"},
		"decided twice":     {"policy allow\nbanned account " + a + "\nallowed account " + a + "\nend\n", "line 3"},
		"after the end":     {"policy allow\nend\nbanned device " + d + "\n", "line 3"},
		"two ends":          {"policy allow\nend\nend\n", "line 3"},
		"byte order mark":   {"\ufeffpolicy allow\nend\n", "line 1"},
		"UTF-16":            {"p\x00o\x00l\x00i\x00c\x00y\x00", "line 1"},
		"endless line":      {"policy allow\n" + strings.Repeat("x", 1<<20), "line 2"},
		"terminal escapes":  {"policy allow\n\x1b[2J\nend\n", "line 2"},
		"binary":            {"\x7fELF\x00\x01", "line 1"},
		"comment in a line": {"policy allow\nbanned # device " + d + "\nend\n", "line 2"},
	} {
		var tr Trust
		tr.Set(bob.DeviceID(), Banned)
		err := tr.UnmarshalText([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 600 || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
		if tr.Check(bob.Peer()) == nil {
			t.Errorf("%s: the ban was lost", name)
		}
	}
}

// Cut at any byte, a store is refused.
//
// fault: I1
func TestTrustTextCutAnywhereIsRefused(t *testing.T) {
	var tr Trust
	tr.Set(DeviceID{1}, Banned)
	tr.Set(AccountID{2}, Allowed)
	text, err := tr.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) - 1 { // without its last newline it is whole
		if new(Trust).UnmarshalText(text[:n]) == nil {
			t.Errorf("cut to %q: taken", text[:n])
		}
	}
}

func TestTrustIsSafeForConcurrentUse(t *testing.T) {
	var tr Trust
	p := generate(t, "bob").Peer()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				switch (i + n) % 6 {
				case 0:
					tr.Set(p.Device, Banned)
				case 1:
					tr.Set(p.Device, Undecided)
				case 2:
					_ = tr.Check(p)
				case 3:
					tr.SetPolicy(Policy(n % 2))
				case 4:
					_, _ = tr.MarshalText()
				default:
					tr.Changed()
				}
			}
		})
	}
	wg.Wait()
	tr.Set(p.Device, Banned)
	if tr.Check(p) == nil || tr.Decision(p.Device) != Banned {
		t.Error("the last decision does not hold")
	}
}

func FuzzTrustText(f *testing.F) {
	id := strings.Repeat("ab", 32)
	f.Add([]byte("policy allow\nend\n"))
	f.Add([]byte("# x\npolicy refuse\nbanned device " + id + "\nallowed account " + id + "\nend\n"))
	f.Add([]byte("policy refuse\r\nbanned device " + id + "\r\n"))
	f.Add([]byte("end"))
	f.Add([]byte("policy allow\nhome device " + id + " " + id + "/" + id + " " + id + "\npast account " + id + " " + id + "\nend\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr, again Trust
		if err := tr.UnmarshalText(b); err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		text, err := tr.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(text); err != nil {
			t.Fatalf("%q became %q: %v", b, text, err)
		}
		if out, _ := again.MarshalText(); !bytes.Equal(out, text) {
			t.Errorf("%q became %q", text, out)
		}
	})
}

func TestDecisionsHaveNames(t *testing.T) {
	for d, want := range map[Decision]string{Undecided: "undecided", Allowed: "allowed", Banned: "banned", 17: "undecided"} {
		if d.String() != want {
			t.Errorf("%d is %q, want %q", d, d, want)
		}
	}
}

func TestMembersAreAllowedOrKnown(t *testing.T) {
	f := newFamily(t)
	p, err := VerifyChain(ders(f.device, f.account, f.ca), certNow)
	if err != nil {
		t.Fatal(err)
	}
	if (*Trust)(nil).Member(p) || new(Trust).Member(p) || new(Trust).Member(Peer{}) {
		t.Error("a peer about whom nothing is known is a member")
	}
	for _, s := range []Subject{p.Device, p.Account, p.CA} {
		tr := new(Trust)
		if err := tr.Set(s, Allowed); err != nil {
			t.Fatal(err)
		}
		if !tr.Member(p) {
			t.Errorf("%v is allowed, but its peer is no member", s)
		}
	}
	tr := new(Trust)
	tr.SetMembers(func(q Peer) bool { return q.Account == p.Account })
	if !tr.Member(p) {
		t.Error("a peer that the program knows is no member")
	}
	if err := tr.Set(p.Device, Banned); err != nil {
		t.Fatal(err)
	}
	if tr.Member(p) {
		t.Error("a banned peer is a member")
	}
	tr.SetMembers(nil)
	if tr.Member(p) {
		t.Error("nothing is known any more, but the peer is a member")
	}
}

// Whose links are there already is looked at again.
//
// case: S1
func TestNewMembersAreAChange(t *testing.T) {
	trust := new(Trust)
	changed := trust.Changed()
	trust.SetMembers(func(Peer) bool { return true })
	select {
	case <-changed:
	default:
		t.Error("nobody is told of it")
	}
}
