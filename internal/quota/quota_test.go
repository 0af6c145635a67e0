package quota

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"
)

// The model has a list of places, each with its key's kind, and counts all of them
// at every step.
func TestQuotaBehavesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := func(name string) Limits {
			return Limits{rapid.IntRange(0, 4).Draw(t, name+" each"), rapid.IntRange(0, 8).Draw(t, name+" all")}
		}
		bound := [pools]Limits{limits("members"), limits("strangers")}
		q := NewPools[string](bound[members], bound[strangers])
		places, kind := map[string]int{}, map[string]pool{}
		in := func(p pool, but string) (sum int) {
			for k, n := range places {
				if kind[k] == p && k != but {
					sum += n
				}
			}
			return sum
		}
		keys := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		take := func(t *rapid.T, p pool, take func(string) error) {
			key := keys.Draw(t, "key")
			var want error
			switch {
			case places[key] >= bound[p].Each:
				want = ErrKey
			case in(p, key)+places[key]+1 > bound[p].All:
				want = ErrAll
			default:
				places[key]++
				kind[key] = p
			}
			if err := take(key); err != want {
				t.Fatalf("take of %s: %v, want %v", key, err, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take":          func(t *rapid.T) { take(t, members, q.Take) },
			"take stranger": func(t *rapid.T) { take(t, strangers, q.TakeStranger) },
			"release": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				defer func() {
					if r := recover(); (r != nil) != (places[key] == 0) {
						t.Fatalf("release of one of %d: %v", places[key], r)
					}
					places[key] = max(0, places[key]-1)
				}()
				q.Release(key)
			},
			"": func(t *rapid.T) {
				m, s := q.Used()
				if m != in(members, "") || s != in(strangers, "") {
					t.Fatalf("%d and %d taken, want %d and %d", m, s, in(members, ""), in(strangers, ""))
				}
				for k, n := range places {
					if q.keys[k].places != n {
						t.Fatalf("%s has %d, want %d", k, q.keys[k].places, n)
					}
				}
				if len(q.keys) > m+s {
					t.Fatalf("%d keys are remembered for %d places", len(q.keys), m+s)
				}
			},
		})
	})
}

func TestStrangersDoNotTakeTheRoomOfMembers(t *testing.T) {
	q := NewPools[int](Limits{2, 4}, Limits{1, 2})
	for key := range 100 {
		_ = q.TakeStranger(key)
	}
	for key := range 4 {
		if err := q.Take(1000 + key); err != nil {
			t.Errorf("member %d: %v", key, err)
		}
	}
	if err := q.Take(2000); !errors.Is(err, ErrAll) {
		t.Errorf("%v, want ErrAll", err)
	}
}

func TestAStrangerThatBecomesAMemberMakesRoomForAnother(t *testing.T) {
	q := NewPools[string](Limits{4, 4}, Limits{2, 2})
	for _, take := range []error{q.TakeStranger("a"), q.TakeStranger("a"), q.Take("a"), q.TakeStranger("b"), q.TakeStranger("b")} {
		if take != nil {
			t.Fatal(take)
		}
	}
	for range 3 {
		q.Release("a") // in the pool where they are by now
	}
	if m, s := q.Used(); m != 0 || s != 2 {
		t.Errorf("%d and %d are taken, want 0 and 2", m, s)
	}
}

func TestOneOfBothLimitsMayBeNone(t *testing.T) {
	q := New[int](1, NoLimit)
	for key := range 100 {
		if err := q.Take(key); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Take(5); err != ErrKey {
		t.Errorf("%v, want ErrKey", err)
	}
	if err := q.TakeStranger(1000); err != ErrKey {
		t.Errorf("a pool that is not there: %v, want ErrKey", err)
	}
}

func TestRatesAreOfEachKey(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := NewRates[string](2, rate.Every(time.Second), 3)
	allowed := func(key string, want ...bool) {
		t.Helper()
		for i, w := range want {
			if got := r.Allow(key, now); got != w {
				t.Errorf("%s, time %d: %v, want %v", key, i, got, w)
			}
		}
	}
	allowed("a", true, true, true, false)
	allowed("b", true)
	now = now.Add(2 * time.Second)
	allowed("a", true, true, false)
	allowed("c", true) // b, which was heard of least recently, is forgotten
	allowed("a", false)
	allowed("b", true, true, true, false)
}

// Three thousand networks of one owner have their own rates while they are remembered,
// and one for all of them beyond that; others are not among them.
//
// case: S11
func TestAFloodOfKeysGetsNoFreshRates(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	const keys, burst = 100, 4
	rates := func() *Rates[netip.Prefix] { return NewRates[netip.Prefix](keys, rate.Every(time.Second), burst) }
	r := rates().Within(rates(), func(p netip.Prefix) netip.Prefix { return NetworkOf(p.Addr(), 16, 32) })
	network := func(hi, lo int) netip.Prefix {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, byte(hi), byte(lo >> 8), byte(lo)})
		return NetworkOf(a, 24, 64)
	}
	in := 0
	for range 2 {
		for i := range 3000 {
			for range burst {
				if r.Allow(network(0xb8, i), now) {
					in++
				}
			}
		}
	}
	if want := keys*burst + burst; in != want {
		t.Errorf("%d let in, want %d", in, want)
	}
	if !r.Allow(network(0xb9, 1), now) {
		t.Error("another network pays for the flood")
	}
	now = now.Add(burst * time.Second) // the bursts are whole again, and may be forgotten
	for i := range keys {
		if !r.Allow(network(0xb9, i), now) {
			t.Errorf("network %d has no rate of its own after the flood", i)
		}
	}
}

func TestNetworksAreWhatOneStrangerControls(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:80":             "192.0.2.7/32",
		"[::ffff:192.0.2.7]:80":    "192.0.2.7/32",
		"[2001:db8:1:2:3::9]:1":    "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"@":                        "invalid Prefix",
		"":                         "invalid Prefix",
		"host.example:80":          "invalid Prefix",
		"[2001:db8:1:2:3::9]:1:::": "invalid Prefix",
	} {
		if got := Host(in); got.String() != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := NetworkOf(netip.MustParseAddr("2001:db8:1:2::1"), 24, 48).String(); got != "2001:db8:1::/48" {
		t.Error(got)
	}
	if got := NetworkOf(netip.MustParseAddr("192.0.2.7"), 24, 48).String(); got != "192.0.2.0/24" {
		t.Error(got)
	}
}
