package account

import (
	"bytes"
	"testing"
	"time"
)

// post carries letters between processes of one device until none is under way:
// each letter comes to all, the sender included.
func post(now time.Time, letters [][]byte, all ...*twins) (found []*Twin, sent int) {
	found = make([]*Twin, len(all))
	for len(letters) > 0 && sent < 100 {
		b := letters[0]
		letters = letters[1:]
		sent++
		for i, t := range all {
			answer, f := t.take(b, now)
			if f != nil {
				found[i] = f
			}
			if answer != nil {
				letters = append(letters, answer)
			}
		}
	}
	return found, sent
}

// fault: I5
func TestTwoProcessesOfOneDeviceFindEachOtherAndOneYields(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, second := range map[string]time.Time{"later": now.Add(time.Hour), "at once": now, "its clock is behind": now.Add(-time.Hour)} {
		t.Run(name, func(t *testing.T) {
			a, b := newTwins(now), newTwins(second)
			found, sent := post(now, [][]byte{b.hello()}, a, b)
			if found[0] == nil || found[1] == nil {
				t.Fatalf("found %v", found)
			}
			if found[0].Yields == found[1].Yields {
				t.Errorf("%v and %v yield", found[0].Yields, found[1].Yields)
			}
			if second.After(now) && !found[1].Yields {
				t.Error("the first one yields")
			}
			if !found[0].Started.Equal(second) {
				t.Errorf("started %v, want %v", found[0].Started, second)
			}
			if sent > 5 {
				t.Errorf("%d letters", sent)
			}
		})
	}
}

// A question that waited at a node since before a restart comes from nobody.
// fault: I5
func TestARestartIsNoTwin(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	before := newTwins(now)
	letters := [][]byte{before.hello(), twinLetter{Kind: 'a', From: before.me, To: instance{7}, Started: before.started}.encode()}
	if found, _ := post(now, letters, newTwins(now.Add(time.Second))); found[0] != nil {
		t.Errorf("found %v", found[0])
	}
}

// fault: J1
func TestTwinsAreAnsweredABoundedNumberOfTimes(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	me := newTwins(now)
	answers := 0
	for range 1000 {
		for _, other := range []*twins{newTwins(now), newTwins(now)} {
			if a, _ := me.take(other.hello(), now); a != nil {
				answers++
			}
		}
	}
	if answers != maxAnswered || len(me.answered) != maxAnswered {
		t.Errorf("%d answers, %d remembered", answers, len(me.answered))
	}
}

func FuzzParseTwinLetter(f *testing.F) {
	f.Add(newTwins(time.UnixMilli(1)).hello())
	f.Add(twinMagic[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseTwinLetter(b)
		if ok && !bytes.Equal(l.encode(), b) {
			t.Errorf("%x was read as %+v", b, l)
		}
		newTwins(time.UnixMilli(1)).take(b, time.UnixMilli(2))
	})
}
