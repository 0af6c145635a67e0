package peerlinktest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"peerlink"
)

// packet is what is under way in a flow, or waits there to be read.
type packet struct {
	b   []byte
	at  time.Time // when it arrives; zero: not, as long as the flow is held
	end ending
}

// ending is what a packet without bytes says.
type ending uint8

const (
	none   ending = iota
	ended         // nothing more is written
	closed        // nor read
)

// maxDatagrams is how many datagrams of a stream may wait; more are dropped.
const maxDatagrams = 1024

// maxDatagram is how long a datagram may be: what QUIC can rely on.
const maxDatagram = 1200

// flow is one direction of a stream. Its fields are guarded by fabric.mu.
type flow struct {
	f         *fabric
	way       *way
	wake      sync.Cond // on fabric.mu: something of this has changed
	packets   []packet
	datagrams []packet // by arrival
	size      int      // bytes of packets
	held      bool     // nothing arrives
	silenced  bool     // until it is closed
	dropped   bool     // the reading end is closed
	err       error
}

func newFlow(f *fabric, w *way) *flow {
	fl := &flow{f: f, way: w}
	fl.wake.L = &f.mu
	fl.held = f.blocked(w)
	return fl
}

// push sends a packet, if there still is an end that could read it.
func (f *flow) push(b []byte, e ending) {
	if f.dropped {
		return
	}
	p := packet{b: slices.Clone(b), end: e}
	if !f.held {
		p.at = f.arrival(len(b))
	}
	f.packets = append(f.packets, p)
	f.size += len(b)
	f.wake.Broadcast()
}

// arrival is the way's, with what losses make of it: nothing is read before what was
// written before it.
func (f *flow) arrival(n int) time.Time {
	at := f.way.arrival(n)
	for f.way.lost() {
		at = at.Add(max(2*f.way.Delay, time.Millisecond))
	}
	return at
}

// arrived reports whether a packet is there to be read.
func (p packet) arrived(now time.Time) bool { return !p.at.IsZero() && !p.at.After(now) }

// hold stops what has not arrived, or sends it again: the sender goes on trying.
// Datagrams under way are gone.
func (f *flow) hold() {
	held := f.silenced || f.f.blocked(f.way)
	if held == f.held {
		return
	}
	f.held = held
	now := time.Now()
	for i := range f.packets {
		switch p := &f.packets[i]; {
		case held && !p.arrived(now):
			p.at = time.Time{}
		case !held && p.at.IsZero():
			p.at = f.arrival(len(p.b))
		}
	}
	f.datagrams = slices.DeleteFunc(f.datagrams, func(p packet) bool { return !p.arrived(now) })
	f.wake.Broadcast()
}

// wait waits for a change of the flow, or until the first of waiting has arrived.
func (f *flow) wait(waiting []packet) {
	if len(waiting) > 0 && !waiting[0].at.IsZero() {
		defer f.f.ring(&f.wake, time.Until(waiting[0].at)).Stop()
	}
	f.wake.Wait()
}

// end ends the flow: what it holds is gone.
func (f *flow) end(err error) {
	f.packets, f.datagrams, f.size, f.dropped = nil, nil, 0, true
	if f.err == nil {
		f.err = err
	}
	f.wake.Broadcast()
}

// deadline is a time at which waiting ends. It is guarded by fabric.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set has the waiting on wake end at t; zero: never.
func (d *deadline) set(f *fabric, t time.Time, wake *sync.Cond) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at, d.timer = t, nil
	if left := time.Until(t); left > 0 {
		d.timer = f.ring(wake, left)
	}
	wake.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// addr is a peer's address on a carrier in memory.
type addr struct{ carrier, name string }

func (a addr) Network() string { return a.carrier }
func (a addr) String() string  { return a.name }

// stream is one end of a connection in memory. Its fields are guarded by
// fabric.mu.
type stream struct {
	f               *fabric
	in, out         *flow
	readBy, writeBy deadline
	ended, closed   bool
}

func (s *stream) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: s.out.way.carrier, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// Read returns what has arrived. What had arrived before a cut can still be read;
// after a reset nothing can.
func (s *stream) Read(p []byte) (int, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, s.fail("read", net.ErrClosed)
		case s.in.err != nil:
			return 0, s.fail("read", s.in.err)
		case s.readBy.passed():
			return 0, s.fail("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		if n, err := s.in.take(p); n > 0 || err != nil {
			return n, err
		}
		s.in.wait(s.in.packets)
	}
}

// take reads what has arrived, without waiting.
func (f *flow) take(p []byte) (n int, err error) {
	now := time.Now()
	for len(f.packets) > 0 && n < len(p) {
		head := &f.packets[0]
		if !head.arrived(now) {
			break
		}
		if head.end != none {
			if n == 0 {
				err = io.EOF
			}
			break
		}
		k := copy(p[n:], head.b)
		n, f.size, head.b = n+k, f.size-k, head.b[k:]
		if len(head.b) == 0 {
			f.packets = f.packets[1:]
		}
	}
	if n > 0 {
		f.wake.Broadcast() // there is room
	}
	return n, err
}

// over reports whether the end that writes to the flow has closed, and this is
// known at the other end.
func (f *flow) over() bool {
	if len(f.packets) == 0 {
		return false
	}
	last := f.packets[len(f.packets)-1]
	return last.end == closed && last.arrived(time.Now())
}

// Write returns when all of p is under way; it waits for room. The far end's Close
// breaks it as soon as that could be known here.
func (s *stream) Write(p []byte) (n int, err error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for {
		switch {
		case s.closed:
			return n, s.fail("write", net.ErrClosed)
		case s.out.err != nil:
			return n, s.fail("write", s.out.err)
		case s.writeBy.passed():
			return n, s.fail("write", os.ErrDeadlineExceeded)
		case s.ended, s.in.over():
			return n, s.fail("write", syscall.EPIPE)
		case len(p) == 0:
			return n, nil
		case s.out.dropped:
			return n + len(p), nil // this end cannot know yet
		}
		k := min(len(p), s.out.way.buffer()-s.out.size)
		if k <= 0 {
			s.out.wake.Wait()
			continue
		}
		if !s.out.way.plain() {
			k = min(k, segment)
		}
		s.out.push(p[:k], none)
		p, n = p[k:], n+k
	}
}

// CloseWrite ends this direction; the far end reads the rest, and then io.EOF.
func (s *stream) CloseWrite() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.closed {
		return s.fail("close", net.ErrClosed)
	}
	if !s.ended {
		s.ended = true
		s.out.push(nil, ended)
	}
	return nil
}

// Close ends both directions. What was written still arrives.
func (s *stream) Close() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.out.push(nil, closed)
	s.in.end(nil)
	for _, d := range []*deadline{&s.readBy, &s.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	s.f.wires = slices.DeleteFunc(s.f.wires, func(w *wire) bool { return w[0].closed && w[1].closed })
	return nil
}

// breakOff breaks both directions, at both ends.
func (s *stream) breakOff(cause error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.in.end(cause)
	s.out.end(cause)
}

// over reports whether the far end has closed, and this end knows.
func (s *stream) over() bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.in.over()
}

func (s *stream) LocalAddr() net.Addr  { return addr{s.out.way.carrier, s.out.way.from} }
func (s *stream) RemoteAddr() net.Addr { return addr{s.out.way.carrier, s.out.way.to} }

// Path says between which peers the bytes go.
func (s *stream) Path() peerlink.Path {
	return peerlink.Path{Engine: s.out.way.carrier, Detail: s.out.way.from + "→" + s.out.way.to}
}

func (s *stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.readBy.set(s.f, t, &s.in.wake)
	return s.isOpen()
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.writeBy.set(s.f, t, &s.out.wake)
	return s.isOpen()
}

func (s *stream) isOpen() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.closed {
		return s.fail("set", net.ErrClosed)
	}
	return nil
}

var errTooLong = errors.New("the datagram is too long")

// SendDatagram sends p, or loses it.
func (s *stream) SendDatagram(p []byte) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	f := s.out
	switch {
	case s.closed:
		return s.fail("send", net.ErrClosed)
	case len(p) > maxDatagram:
		return s.fail("send", errTooLong)
	case f.held, f.dropped, f.way.lost(), len(f.datagrams) >= maxDatagrams:
		return nil
	case f.way.Rate > 0 && time.Until(f.way.free).Seconds()*float64(f.way.Rate) > float64(f.way.buffer()):
		return nil
	}
	d := packet{b: slices.Clone(p), at: f.way.arrival(len(p))}
	i := slices.IndexFunc(f.datagrams, func(o packet) bool { return o.at.After(d.at) })
	if i < 0 {
		i = len(f.datagrams)
	}
	f.datagrams = slices.Insert(f.datagrams, i, d)
	f.wake.Broadcast()
	return nil
}

// ReceiveDatagram returns the next datagram that arrives.
func (s *stream) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	defer context.AfterFunc(ctx, func() {
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		s.in.wake.Broadcast()
	})()
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	f := s.in
	for {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case s.closed:
			return nil, s.fail("receive", net.ErrClosed)
		case f.err != nil:
			return nil, s.fail("receive", f.err)
		case len(f.datagrams) > 0 && f.datagrams[0].arrived(time.Now()):
			d := f.datagrams[0]
			f.datagrams = f.datagrams[1:]
			return d.b, nil
		}
		f.wait(f.datagrams)
	}
}

// MaxDatagram returns how long a datagram may be.
func (s *stream) MaxDatagram() int { return maxDatagram }
