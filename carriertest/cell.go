package carriertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/multiplex"
)

const (
	// patience bounds a cell: many times what a busy machine needs for one.
	patience = 30 * time.Second
	// little bytes fit into any channel's buffers, so that Write returns without a
	// reader: what the protocol promises each channel.
	fewBytes = 64 << 10
	// manyBytes do not fit: some are on their way when the end comes.
	manyBytes = 1 << 20
)

// pace is how a reader reads.
type pace int

const (
	fast   pace = iota // all the time
	slow               // a piece, and the rest once the end has begun
	absent             // nothing before the end is over
)

var paceNames = [...]string{"fast", "slow", "absent"}

// side says which device ends.
type side int

const (
	caller   side = iota // the device that has dialled the link
	acceptor             // the other
)

var sideNames = [...]string{"caller", "acceptor"}

// cell is one cell of the table.
type cell struct {
	carrier Carrier
	way     *way
	pace    pace
	side    side
	test    string // its name, for another process
}

// play makes a world, ends a channel there, and judges what both programs were
// told.
func (c *cell) play(ctx context.Context) (verdict, fault string) {
	if c.way.play != nil {
		return c.way.play(ctx, c)
	}
	w, err := newWorld(ctx, c.carrier, [2]multiplex.Config{})
	defer w.close()
	if err == nil {
		err = w.link(ctx)
	}
	s := new(stage)
	if err == nil {
		err = s.set(ctx, c, w)
	}
	var o outcome
	if err == nil {
		o, err = c.perform(ctx, s)
	}
	if err != nil {
		return "not played", err.Error()
	}
	return o.String(), c.way.judge(o)
}

// ends returns the device that ends, and the other.
func (c *cell) ends(w *world) (ender, other *device) {
	if c.side == caller {
		return w.caller, w.acceptor
	}
	return w.acceptor, w.caller
}

// set opens the channel: the link's caller does.
func (s *stage) set(ctx context.Context, c *cell, w *world) error {
	p, err := open(ctx, w.caller, w.acceptor, "channel", peerlink.OnlyIfConnected)
	if err != nil {
		return err
	}
	s.ender, s.other = c.ends(w)
	s.listener, s.patient = p.listener, c.pace != absent
	s.writer, s.reader = p.opened, p.accepted
	if (c.side == caller) == c.way.byReader {
		s.writer, s.reader = p.accepted, p.opened
	}
	return nil
}

// outcome is what the programs were told.
type outcome struct {
	wrote int   // bytes for which Write has returned
	got   int   // bytes that were read
	read  error // what ended the reading
	heard error // what the writer heard then; nil: it does not listen
	end   error // what ended returned
}

// perform has the programs of both sides run until each has heard its end.
func (c *cell) perform(ctx context.Context, s *stage) (o outcome, err error) {
	size := fewBytes
	if c.pace == fast && !(c.way.byReader && c.way.cuts) {
		size = manyBytes
	}
	begun, ended, piece := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var programs sync.WaitGroup
	defer programs.Wait()
	programs.Go(func() {
		r := &progress{conn: s.reader}
		switch c.pace {
		case absent:
			<-ended
		case slow:
			r.some(1 << 10)
			close(piece)
			<-begun
		}
		o.got, o.read = r.all()
		if o.read == io.EOF {
			_ = s.reader.Close()
		}
	})
	o.wrote, err = s.writer.Write(pattern(0, size))
	if err == nil && c.way.first != nil {
		err = c.way.first(s.writer)
	}
	if c.pace == slow {
		<-piece
	}
	close(begun)
	if c.way.hears != nil && !(c.way.byReader && c.way.cuts) {
		programs.Go(func() { o.heard = c.way.hears(s.writer); _ = s.writer.Close() })
	}
	o.end = c.way.end(ctx, s)
	close(ended)
	if c.way.hears != nil && c.way.byReader && c.way.cuts {
		o.heard = c.way.hears(s.writer)
	}
	programs.Wait()
	return o, err
}

// pattern returns a part of what all writers write.
func pattern(from, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		at := from + i
		p[i] = byte(at ^ at>>8 ^ at>>16)
	}
	return p
}

// progress is a reader's progress.
type progress struct {
	conn  io.Reader
	n     int
	err   error
}

// errWrong is for bytes that were not written so.
var errWrong = errors.New("other bytes than were written")

// some reads n bytes more, if there are so many.
func (r *progress) some(n int) {
	p := make([]byte, n)
	for n > 0 && r.err == nil {
		var k int
		k, r.err = r.conn.Read(p[:n])
		if string(p[:k]) != string(pattern(r.n, k)) {
			r.err = errWrong
		}
		r.n += k
		n -= k
	}
}

// all reads until the end.
func (r *progress) all() (int, error) {
	for r.err == nil {
		r.some(32 << 10)
	}
	return r.n, r.err
}

// String says what happened: how much was read, the end that the reader saw, what
// the writer heard, and what the ending call returned.
func (o outcome) String() string {
	text := "whole"
	if o.got < o.wrote {
		text = "cut"
	}
	text += ", " + kind(o.read)
	if o.heard != nil {
		text += " | " + kind(o.heard)
	}
	if o.end != nil {
		text += " | " + kind(o.end)
	}
	return text
}

// kind is an error in a word or two.
func kind(err error) string {
	if err == io.EOF {
		return "EOF"
	}
	if reset, ok := errors.AsType[*channel.ResetError](err); ok {
		return fmt.Sprintf("reset (%s)", reset.Code)
	}
	if _, ok := errors.AsType[*multiplex.GoingAwayError](err); ok {
		return "going away"
	}
	for sentinel, word := range map[error]string{
		net.ErrClosed: "closed", os.ErrDeadlineExceeded: "time is up", context.DeadlineExceeded: "time is up", context.Canceled: "time is up",
		multiplex.ErrDead: "dead", errWrong: "wrong bytes", multiplex.ErrDeclined: "declined",
	} {
		if errors.Is(err, sentinel) {
			return word
		}
	}
	return "link lost"
}

// hung reports whether only the cell's own bound has ended something.
func hung(err error) bool { return err != nil && errors.Is(err, os.ErrDeadlineExceeded) }

// judge returns what is wrong with an outcome; "" is nothing.
func (w *way) judge(o outcome) string {
	whole := o.got == o.wrote
	complete := whole && o.read == io.EOF
	switch {
	case hung(o.read) || hung(o.heard):
		return "a side was never told"
	case errors.Is(o.read, errWrong):
		return "other bytes than were written"
	case o.read == io.EOF && !w.clean:
		return "the reader saw a clean end that the writer did not make"
	case o.read == io.EOF && !whole:
		return fmt.Sprintf("the reader has %d of %d bytes and a clean end", o.got, o.wrote)
	case !whole && !w.cuts && o.end == nil:
		return fmt.Sprintf("%d of %d bytes have arrived, and the call that ended says nothing of it: the reader has %v", o.got, o.wrote, o.read)
	case w.clean && !w.cuts && o.end == nil && !complete:
		return fmt.Sprintf("the reader was not told of the clean end: %v", o.read)
	case o.heard == io.EOF && !complete:
		return fmt.Sprintf("the writer heard a clean end; the reader has %d of %d bytes and %v", o.got, o.wrote, o.read)
	}
	return ""
}
