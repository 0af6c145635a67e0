package peerlink

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/multiplex"
)

// meeting is the part that owns unique channels, and a link to open them on.
type meeting struct {
	uniques
	key       uniqueKey
	near, far *multiplex.Socket
}

func newMeeting(t *testing.T, self, peer byte) *meeting {
	a, b := net.Pipe()
	x := &meeting{key: uniqueKey{identity.DeviceID{peer}, "sync://"}}
	x.near, x.far = multiplex.Client(a, multiplex.Config{}), multiplex.Server(b, multiplex.Config{})
	t.Cleanup(func() {
		_ = x.near.Close()
		_ = x.far.Close()
	})
	x.uniques = uniques{
		self: identity.DeviceID{self}, keys: make(map[uniqueKey]*unique),
		life: new(life.Group), running: func() error { return nil },
	}
	return x
}

// ask opens a channel on the link.
func (x *meeting) ask(ctx context.Context) (*channel.Socket, error) {
	go func() {
		if r, err := x.far.Accept(ctx); err == nil {
			_, _ = r.Accept()
		}
	}()
	return x.near.Open(ctx, x.key.uri)
}

func TestCallersOfAUniqueChannelShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newMeeting(t, 1, 2)
		asked := 0
		ask := func(ctx context.Context) (*channel.Socket, error) {
			asked++
			time.Sleep(time.Second)
			return x.ask(ctx)
		}
		results := make(chan *channel.Socket, 3)
		for range 3 {
			go func() {
				s, err := x.connect(t.Context(), x.key, ask)
				if err != nil {
					t.Error(err)
				}
				results <- s
			}()
		}
		first := <-results
		second, third := <-results, <-results
		if second != first || third != first || asked != 1 {
			t.Errorf("asked %d times, or the callers got different channels", asked)
		}
		_ = first.Close()
		if again, err := x.connect(t.Context(), x.key, ask); err != nil || again == first || asked != 2 {
			t.Errorf("after its end: the same channel, or %v; asked %d times", err, asked)
		}
	})
}

// A call that has no callers ends. One that ends because the caller that began it
// had less time than others is made again for them, once.
func TestUniqueCallEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newMeeting(t, 1, 2)
		var ended []error
		ask := func(ctx context.Context) (*channel.Socket, error) {
			<-ctx.Done()
			ended = append(ended, context.Cause(ctx))
			return nil, context.Cause(ctx)
		}
		call := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if _, err := x.connect(ctx, x.key, ask); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		go call(time.Second)
		synctest.Wait()
		call(time.Minute)
		synctest.Wait()
		if len(ended) != 2 || !errors.Is(ended[0], errImpatient) || len(x.keys) != 0 {
			t.Errorf("calls ended with %v, %d are left", ended, len(x.keys))
		}
	})
}

// The device with the smaller id has its own request answered before it decides
// on the peer's; the other one takes its own back and gives the caller the peer's.
func TestUniqueRequestsOfBothSidesMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, self := range []byte{1, 3} {
			x := newMeeting(t, self, 2)
			theirs, err := x.ask(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			answer := make(chan struct{})
			ask := func(ctx context.Context) (*channel.Socket, error) {
				select {
				case <-answer:
					return x.ask(ctx)
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			}
			got := make(chan *channel.Socket, 1)
			go func() {
				s, _ := x.connect(t.Context(), x.key, ask)
				got <- s
			}()
			synctest.Wait()
			pings, settled := 0, make(chan bool, 1)
			go func() {
				settled <- x.request(t.Context(), x.key, func() { pings++ }, func() (*channel.Socket, error) { return theirs, nil })
			}()
			synctest.Wait()
			close(answer)
			if s, mine := <-got, <-settled; (s == theirs) != (self == 3) || mine != (self == 3) || pings != 1-int(self/2) {
				t.Errorf("device %d: got the peer's channel: %v, answered its request: %v, %d pings", self, s == theirs, mine, pings)
			}
		}
	})
}

func TestUniqueCallWaitsForTheDecisionOnThePeersRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newMeeting(t, 1, 2)
		if x.request(t.Context(), x.key, nil, nil) {
			t.Error("a request is answered where there is no call")
		}
		got := make(chan *channel.Socket, 1)
		go func() {
			s, _ := x.connect(t.Context(), x.key, nil)
			got <- s
		}()
		synctest.Wait()
		theirs, err := x.ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		x.accepted(x.key, theirs)
		x.decided(x.key)
		if s := <-got; s != theirs || x.keys[x.key].undecided != 0 {
			t.Errorf("got %p, want the channel of the peer, %p; %d undecided", s, theirs, x.keys[x.key].undecided)
		}
	})
}
