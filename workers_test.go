package peerlink

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// A device that has all its places waits for one of them; others do not.
func TestWorkersBoundTheCallbacksAboutADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, bob, carol := newWorkers(), identity.DeviceID{2}, identity.DeviceID{3}
		var leave func()
		for range maxCallbacksPerDevice {
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
		if len(w.all) != maxCallbacksPerDevice {
			t.Errorf("%d places are taken in all", len(w.all))
		}
	})
}
