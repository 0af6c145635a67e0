//go:build linux

package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink/cmd/peerchat/internal/control"
)

// told follows the changes that a daemon tells of, until the test ends.
func told(t *testing.T, c *control.Client) <-chan control.Changed {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, ready, ended := make(chan control.Changed, 64), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- control.OpChanges.Follow(ctx, c, control.None{}, func() { close(ready) }, func(ch control.Changed) error {
			select {
			case out <- ch:
				return nil
			default:
				return errors.New("more changes than there were")
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal("nothing is told of")
	}
	return out
}

// next waits for a change that is wanted; others may come with it.
func next(t *testing.T, c <-chan control.Changed, want func(control.Changed) bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case ch := <-c:
			if want(ch) {
				return
			}
		case <-deadline:
			t.Fatal("no such change was told")
		}
	}
}

func TestLinksThatComeAndGoAreToldAtOnce(t *testing.T) {
	alice, bob, bobs := two(t)
	links := func(ch control.Changed) bool { return ch.Links }
	news := told(t, alice)
	a, b := through(t, alice, bob, bobs)
	next(t, news, links)
	_, _ = a.Close(), b.Close()
	if _, err := control.OpContacts.Ask(t.Context(), bob, control.ContactChange{Do: "add", Who: self(t, alice), Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	if _, err := control.OpContacts.Ask(t.Context(), bob, control.ContactChange{Do: "ban", Who: "alice"}); err != nil {
		t.Fatal(err)
	}
	next(t, news, links)
	if st, err := control.OpStatus.Ask(t.Context(), alice, control.None{}); err != nil || len(st.Links) > 0 {
		t.Errorf("it was told that the link has ended, and there are %v, %v", st.Links, err)
	}
}

func self(t *testing.T, c *control.Client) string {
	t.Helper()
	st, err := control.OpStatus.Ask(t.Context(), c, control.None{})
	if err != nil {
		t.Fatal(err)
	}
	return st.Self.Device.String()
}

func TestChangesOfContactsAreTold(t *testing.T) {
	alice, _, bobs := two(t)
	news := told(t, alice)
	for _, ch := range []control.ContactChange{
		{Do: "add", Who: bobs.String(), Name: "bob"}, {Do: "rename", Who: "bob", Name: "robert"}, {Do: "remove", Who: "robert"},
	} {
		if _, err := control.OpContacts.Ask(t.Context(), alice, ch); err != nil {
			t.Fatal(err)
		}
		next(t, news, func(c control.Changed) bool { return c.Contacts })
	}
}

// The doctor tells of a connect it makes, then of the link that is there, and of
// one that the other side has made.
func TestTheDoctorTellsOfEachKindOfLink(t *testing.T) {
	alice, bob, bobs := two(t)
	ask := func(c *control.Client, of control.Examine) Diagnosis {
		t.Helper()
		d, err := OpDoctor.Ask(t.Context(), c, of)
		if err != nil {
			t.Fatal(err)
		}
		return *d
	}
	first := ask(alice, control.Examine{Device: bobs})
	if !first.OK || first.Linked != 0 || len(first.Events) == 0 || first.Carrier == "" || len(first.Hops) != 2 || first.Hops[1].Name != "bob" {
		t.Fatalf("at first %+v", first)
	}
	again := ask(alice, control.Examine{Device: bobs})
	if !again.OK || again.Linked <= 0 || len(again.Events) == 0 || len(again.Hops) != 2 {
		t.Errorf("then %+v", again)
	}
	st, err := control.OpStatus.Ask(t.Context(), alice, control.None{})
	if err != nil {
		t.Fatal(err)
	}
	there := ask(bob, control.Examine{Device: st.Self.Device})
	if !there.OK || there.Linked <= 0 || len(there.Notes) != 1 || there.Error != "" || len(there.Hops) != 2 {
		t.Errorf("from there %+v", there)
	}
	gone := st.Self.Device
	gone[0] ^= 1
	if d := ask(alice, control.Examine{Device: gone}); d.OK || d.Error == "" || len(d.Hops) != 3 || d.Hops[1].Kind != HopBroken {
		t.Errorf("of one that is not there %+v", d)
	}
}
