package peerlink

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
	"peerlink/multiplex"
)

// newLink returns a link over a pipe whose far end is a socket, too.
func newLink(t *testing.T, peer byte, dir Direction) *link {
	near, far := net.Pipe()
	l := &link{peer: identity.Peer{Device: identity.DeviceID{peer}}, direction: dir, asking: make(chan struct{}, 1)}
	l.mux = multiplex.Client(near, multiplex.Config{})
	other := multiplex.Server(far, multiplex.Config{})
	t.Cleanup(func() {
		_ = l.mux.Close()
		_ = other.Close()
	})
	return l
}

func newLinks(self byte) *links {
	return &links{self: identity.DeviceID{self}, capacity: 3, perDevice: 2, byID: make(map[LinkID]*link), byDevice: make(map[identity.DeviceID][]*link)}
}

func TestIDOfAClosedLinkNamesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := newLinks(1)
		a, b := newLink(t, 2, Outbound), newLink(t, 3, Outbound)
		ls.add(a)
		first := a.id
		if ls.byID[first] != a || !ls.remove(a) || ls.remove(a) || ls.byID[first] != nil {
			t.Error("a link is found after it was removed, or not before")
		}
		ls.add(b)
		if b.id == first || ls.byID[first] != nil || ls.byID[b.id] != b {
			t.Errorf("%v names the link that came after %v", first, b.id)
		}
		ls.remove(b)
		ls.add(a)
		if a.id == first || a.id == b.id {
			t.Errorf("%v names another link", a.id)
		}
		if got := ls.all(); len(got) != 1 || got[0] != a {
			t.Errorf("there are %v", got)
		}
	})
}

func TestLinksHaveRoomForSoManyAndForSoManyOfADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := newLinks(1)
		for range 2 {
			if _, err := ls.room(asker{identity.DeviceID{2}, true}, time.Now()); err != nil {
				t.Fatal(err)
			}
			ls.add(newLink(t, 2, Outbound))
		}
		if _, err := ls.room(asker{identity.DeviceID{2}, true}, time.Now()); !errors.Is(err, ErrCapacity) {
			t.Error("a third link to one device:", err)
		}
		ls.add(newLink(t, 3, Inbound))
		if _, err := ls.room(asker{identity.DeviceID{4}, true}, time.Now()); !errors.Is(err, ErrCapacity) {
			t.Error("a fourth link:", err)
		}
	})
}

// Of two links made at once both sides keep the one of the smaller id, whichever
// comes up first; links that were asked for by themselves stay.
func TestLinksThatCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		larger := newLinks(9)
		mine, theirs := newLink(t, 2, Outbound), newLink(t, 2, Inbound)
		larger.add(mine)
		if got := larger.add(theirs); len(got) != 1 || got[0] != mine || !mine.retired {
			t.Errorf("the link of the peer, whose id is smaller, takes the place of %v", got)
		}
		if larger.best(mine.peer.Device, nil) != theirs || !larger.overtaken(newLink(t, 2, Outbound)) {
			t.Error("the link of the peer is not the one that counts")
		}
		alone := newLink(t, 2, Outbound)
		if alone.deliberate = true; larger.overtaken(alone) {
			t.Error("a link that was asked for by itself gives way")
		}

		smaller := newLinks(1)
		mine, theirs = newLink(t, 2, Outbound), newLink(t, 2, Inbound)
		smaller.add(mine)
		if o, wait := smaller.young(mine.peer.Device); o != mine || wait != crossing {
			t.Errorf("the peer's links wait for %v, %v long", o, wait)
		}
		if got := smaller.add(theirs); len(got) != 0 || smaller.overtaken(newLink(t, 2, Outbound)) {
			t.Errorf("the link of this side, whose id is smaller, gives way: %v", got)
		}
		time.Sleep(crossing)
		if o, _ := smaller.young(mine.peer.Device); o != nil {
			t.Error("the peer's links wait for one that the peer knows")
		}
	})
}

func TestBestLinkIsTheFirstThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := newLinks(1)
		older, newer := newLink(t, 2, Outbound), newLink(t, 2, Outbound)
		older.carrier, newer.carrier = "tcp", "ice"
		ls.add(older)
		time.Sleep(time.Millisecond)
		ls.add(newer)
		device := older.peer.Device
		if ls.best(device, nil) != older || ls.best(device, []string{"ice"}) != newer {
			t.Error("not the older link, or not the one of the carrier asked for")
		}
		if older.suspect = true; ls.best(device, nil) != newer {
			t.Error("a link that does not answer goes before one that does")
		}
		if _ = newer.mux.Close(); ls.best(device, nil) != older {
			t.Error("a link that ends goes before one that does not answer")
		}
		if older.retired = true; ls.best(device, nil) != nil {
			t.Error("a link is used that is given up")
		}
	})
}

func TestLinkIsIdleAfterATimeWithoutChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := newLinks(1)
		l := newLink(t, 2, Outbound)
		ls.add(l)
		begin := time.Now()
		look := func(after time.Duration) int { return len(ls.idle(begin.Add(after), time.Minute)) }
		l.asking <- struct{}{}
		if look(0)+look(2*time.Minute) != 0 {
			t.Error("a link is idle on which a request is under way")
		}
		<-l.asking
		if look(2*time.Minute)+look(3*time.Minute-1) != 0 {
			t.Error("a link is idle before its time")
		}
		if look(3*time.Minute) != 1 || !l.retired || look(5*time.Minute) != 0 {
			t.Error("a link without channels is not idle once")
		}
	})
}
