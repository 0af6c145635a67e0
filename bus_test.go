package peerlink

import (
	"testing"
	"testing/synctest"
	"time"
)

// A reader that falls behind loses what waits for it, is told how much, and
// goes on from the state as it is; the others miss nothing.
func TestBusTellsASlowReaderWhatItLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := []Event{{Kind: LinkUp, Initial: true}}
		b := bus{readers: make(map[*reader]struct{}), recap: func() []Event { return state }}
		slow := b.join()
		state = nil
		quick := b.join()
		if got := b.drain(quick); len(got) != 0 {
			t.Errorf("a reader begins with %+v where there is nothing", got)
		}
		for range maxEvents {
			b.tell(Event{Kind: Connecting})
			if got := b.drain(quick); len(got) != 1 || got[0].Kind != Connecting || !got[0].At.Equal(time.Now()) {
				t.Fatalf("the quick reader reads %+v", got)
			}
		}
		state = []Event{{Kind: Connecting, Initial: true}}
		b.tell(Event{Kind: LinkDown})
		<-slow.wake // told once, however much waits
		got := b.drain(slow)
		if len(got) != 2 || got[0].Kind != Missed || got[0].Lost != maxEvents+2 || !got[1].Initial {
			t.Errorf("the slow reader reads %+v", got)
		}
		b.tell(Event{Kind: LinkUp})
		if got := b.drain(slow); len(got) != 1 || got[0].Kind != LinkUp {
			t.Errorf("afterwards it reads %+v", got)
		}
	})
}
