package peerlink

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
)

func newWorkers() *workers {
	return &workers{
		life: new(life.Group), timeout: time.Minute, panicked: func(string, any) {},
		rooms: newRooms(memberCallbacks, strangerCallbacks),
	}
}

// A device that has all its places waits for one of them; others do not.
func TestWorkersBoundTheCallbacksAboutADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, bob, carol := newWorkers(), asker{device: identity.DeviceID{2}}, asker{device: identity.DeviceID{3}}
		var leave func()
		for range strangerCallbacks.Each {
			var err error
			if leave, err = w.enter(t.Context(), bob); err != nil {
				t.Fatal(err)
			}
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.enter(soon, bob); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more place: %v", err)
		}
		other, err := w.enter(t.Context(), carol)
		if err != nil {
			t.Fatal(err)
		}
		if other(); len(w.devices) != 1 {
			t.Errorf("%d devices are remembered, one has places", len(w.devices))
		}
		time.AfterFunc(time.Minute, leave)
		if _, err := w.enter(t.Context(), bob); err != nil {
			t.Error(err)
		}
		if len(w.strangers.all) != strangerCallbacks.Each {
			t.Errorf("%d places are taken in all", len(w.strangers.all))
		}
	})
}

// A decision counts once it is made; without one, or after a panic, the answer
// is no.
func TestDecisionThatIsNotMadeIsANo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, bob, no := newWorkers(), asker{device: identity.DeviceID{2}}, errors.New("no")
		var panics []string
		w.panicked = func(name string, p any) { panics = append(panics, name) }
		release := make(chan struct{})
		for want, decide := range map[error]func(context.Context) error{
			nil:                    func(context.Context) error { return nil },
			no:                     func(context.Context) error { return no },
			errInternal:            func(context.Context) error { panic("oh") },
			os.ErrDeadlineExceeded: func(context.Context) error { <-release; return nil },
		} {
			began := time.Now()
			err := w.ask(t.Context(), "OnICERequest", bob, decide)
			if late := want == os.ErrDeadlineExceeded; !errors.Is(err, want) || (time.Since(began) == time.Minute) != late {
				t.Errorf("got %v after %v, want %v", err, time.Since(began), want)
			}
		}
		synctest.Wait() // the places are left behind the answers
		if len(w.strangers.all) != 1 || len(panics) != 1 {
			t.Errorf("%d places are taken, want that of the callback that runs; panics: %q", len(w.strangers.all), panics)
		}
		if w.notify(t.Context(), "OnNewDevice", bob, func() { panic("oh") }) || !w.notify(t.Context(), "OnNewDevice", bob, func() {}) {
			t.Error("a notice that panicked counts as given, or one that did not does not")
		}
		close(release)
		w.life.End()
		w.life.Wait()
		if err := w.ask(t.Context(), "OnICERequest", bob, nil); !errors.Is(err, errClosed) || len(w.devices) != 0 {
			t.Errorf("after the end: %v, %d devices hold places", err, len(w.devices))
		}
	})
}
