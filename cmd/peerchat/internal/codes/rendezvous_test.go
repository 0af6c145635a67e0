package codes

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// board is a Rendezvous in memory, as one device sees it.
type board struct {
	me identity.DeviceID

	mu        sync.Mutex
	holders   map[int]identity.DeviceID // nil: every number is somebody's
	fail      error
	published int
}

func (b *board) PublishInvite(_ context.Context, number int, _ time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published++
	if b.fail != nil {
		return b.fail
	}
	if h, has := b.holders[number]; has && h != b.me {
		return ErrTaken
	}
	b.holders[number] = b.me
	return nil
}

func (b *board) FindInvite(_ context.Context, number int) (identity.DeviceID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holders == nil {
		return mallory, nil
	}
	h, has := b.holders[number]
	if !has {
		return h, ErrNoInvite
	}
	return h, nil
}

func (b *board) set(number int, who identity.DeviceID, fail error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holders[number], b.fail = who, fail
}

func TestAClaimTakesASmallNumberThatIsFree(t *testing.T) {
	b := &board{me: alice, holders: map[int]identity.DeviceID{}}
	for i := 1; i <= 99; i++ {
		if i != 42 {
			b.holders[i] = mallory
		}
	}
	for range 20 {
		number, until, err := Claim(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(until); left > Life || left < Life-time.Minute {
			t.Errorf("%v left of %v", left, Life)
		}
		if number < 1 || number > MaxNumber || b.holders[number] != alice {
			t.Fatalf("number %d is %v's", number, b.holders[number])
		}
		delete(b.holders, number)
	}
}

func TestAFullBoardIsAnError(t *testing.T) {
	if _, _, err := Claim(t.Context(), &board{me: alice}); err == nil || errors.Is(err, ErrTaken) {
		t.Errorf("%v", err)
	}
	broken := &board{me: alice, holders: map[int]identity.DeviceID{}, fail: errors.New("no node")}
	if _, _, err := Claim(t.Context(), broken); !errors.Is(err, broken.fail) || broken.published != 1 {
		t.Errorf("%v after %d tries", err, broken.published)
	}
}

func TestANumberIsHeldUntilItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{me: alice, holders: map[int]identity.DeviceID{}}
		number, until, err := Claim(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		b.set(0, alice, errors.New("no node answers for the moment"))
		if err := Hold(t.Context(), b, number, until); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if over := time.Since(until); over < 0 || over > time.Second {
			t.Errorf("ended %v after its time", over)
		}
		if most := 1 + int(Life/republishEvery); b.published < most-1 || b.published > most { // the last one and the end come at once
			t.Errorf("published %d times, want %d", b.published, most)
		}
	})
}

func TestAnInviterHearsThatItsNumberWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{me: alice, holders: map[int]identity.DeviceID{}}
		number, until, err := Claim(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		b.set(number, mallory, nil)
		if err := Hold(t.Context(), b, number, until); !errors.Is(err, ErrTaken) {
			t.Errorf("%v", err)
		}
	})
}

func TestHoldEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("used")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if err := Hold(ctx, &board{me: alice}, 1, time.Now().Add(Life)); !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	})
}
