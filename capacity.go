package peerlink

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// strangerLinks is how many links a stranger may make, unless Config.PerDevice is
	// less: a second one while the first has not ended, and two more.
	strangerLinks = 4
	// settleTime is for how long a link without channels does not give way to another
	// stranger: its device is about to ask for one.
	settleTime = 5 * time.Second
	// lookPause is how often a link is looked at, at most: whether its device is a
	// member now.
	lookPause = time.Second
)

// errGaveWay is why a stranger's link with channels is closed.
var errGaveWay = errors.New("a device that is known here needs the room")

// room returns why there is no place for a further link, or the link that has to give
// way to it, or nil. A member, or this side itself, is asked for as a member.
func (ls *links) room(a asker, now time.Time) (out *link, err error) {
	of, each := ls.byDevice[a.device], ls.perDevice
	if !a.member {
		of, each = strangers(of), min(each, strangerLinks)
	}
	if live(of) >= each {
		if out = emptiest(of, now.Add(-settleTime)); out == nil && !a.member {
			out = emptiest(slices.DeleteFunc(of, func(l *link) bool { return l.opened == 0 }), now) // it was used
		}
		if out == nil || a.member {
			return nil, fmt.Errorf("%w: %d exist with this device", ErrCapacity, each)
		}
		return out, nil
	}
	if len(ls.byID) < ls.capacity {
		return nil, nil
	}
	all := ls.all()
	theirs := strangers(all)
	switch {
	case live(all) < ls.capacity:
		return nil, nil
	case !a.member:
		out = emptiest(theirs, now.Add(-settleTime))
	default:
		if out = emptiest(theirs, now); out == nil && live(theirs) > ls.capacity/2 {
			out = ls.newestOfMost(theirs)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("%w: %d exist", ErrCapacity, len(all))
	}
	return out, nil
}

// yields reports whether this side may make one more link while it makes so many:
// there is room, or strangers' links give way.
func (ls *links) yields(making int) bool {
	if len(ls.byID)+making < ls.capacity {
		return true
	}
	all := ls.all()
	theirs := strangers(all)
	lent := max(live(theirs)-ls.capacity/2, 0)
	if lent == 0 && emptiest(theirs, time.Now()) != nil {
		lent = 1
	}
	return live(all)+making < ls.capacity+lent
}

// live counts the links that are not about to be closed.
func live(of []*link) (n int) {
	for _, l := range of {
		if !l.retired {
			n++
		}
	}
	return n
}

// strangers returns the links that are strangers'.
func strangers(of []*link) (theirs []*link) {
	for _, l := range of {
		if l.stranger {
			theirs = append(theirs, l)
		}
	}
	return theirs
}

// emptiest returns the stranger's link that has had no new channel for longest and has
// none, if that is since a time; nil if there is none.
func emptiest(of []*link, since time.Time) (out *link) {
	for _, l := range of {
		if l.stranger && !l.retired && !l.lastChannel.After(since) && (out == nil || l.lastChannel.Before(out.lastChannel)) &&
			len(l.asking) == 0 && l.mux.Stats().Channels == 0 {
			out = l
		}
	}
	return out
}

// newestOfMost returns the newest link of the device that has most of these.
func (ls *links) newestOfMost(of []*link) (out *link) {
	most := 0
	for _, l := range of {
		n := len(ls.byDevice[l.peer.Device])
		if !l.retired && (n > most || n == most && l.up.After(out.up)) {
			out, most = l, n
		}
	}
	return out
}

// giveWayLocked closes the link that makes room for another one; nil: none has to.
// m.mu is held.
func (m *ConnectionManager) giveWayLocked(out *link) {
	if out == nil {
		return
	}
	why := errGaveWay
	if emptiest([]*link{out}, time.Now()) != nil {
		why = errIdle // its device may ask again, for another one
	}
	out.retired = true
	m.retire([]*link{out}, why)
}

// look notes whether a link is a stranger's, and returns its device as one that wants
// a place.
func (m *ConnectionManager) look(l *link) asker {
	a, now := m.asker(l.peer), time.Now() // not under the lock: it may ask the application
	m.lock()
	defer m.mu.Unlock()
	was := l.stranger
	l.member, l.looked, l.stranger = a.member, now, l.direction == Inbound && !l.deliberate && !a.member
	if was && !l.stranger {
		l.mux.Lift()
	}
	return a
}

// glance is look, unless that was done a moment ago: it is for each request.
func (m *ConnectionManager) glance(l *link) asker {
	m.lock()
	a, late := asker{l.peer.Device, l.member}, time.Since(l.looked) >= lookPause
	m.mu.Unlock()
	if late {
		return m.look(l)
	}
	return a
}

// refresh looks at all links, if there is no room for another one: what made a device
// a member may have been told to nobody.
func (m *ConnectionManager) refresh() {
	now, full := time.Now(), false
	m.locked(func() {
		full = len(m.links.byID) >= m.links.capacity && now.Sub(m.links.looked) >= lookPause
		if full {
			m.links.looked = now
		}
	})
	if full {
		for _, l := range m.allLinks() {
			m.look(l)
		}
	}
}
