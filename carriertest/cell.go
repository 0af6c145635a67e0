package carriertest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"peerlink"
	"peerlink/multiplex"
)

const (
	// patience bounds a cell: many times what a busy machine needs for one.
	patience = 30 * time.Second
	// fewBytes fit into any channel's buffers, so that Write returns without a
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

// String returns the word of the table.
func (p pace) String() string { return [...]string{"fast", "slow", "absent"}[p] }

// side says which device ends.
type side int

const (
	caller   side = iota // the one that has dialled the link
	acceptor             // the other
)

// String returns the word of the table.
func (s side) String() string { return [...]string{"caller", "acceptor"}[s] }

// cell is one cell of the table.
type cell struct {
	carrier Carrier
	way     *way
	pace    pace
	side    side
	test    string // its name, for a second process
}

// play makes a world, ends a channel there, and judges what was told.
func (c *cell) play(ctx context.Context) (verdict, fault string) {
	var bounds [2]multiplex.Config
	if c.way.link != nil {
		bounds[c.side] = c.way.link()
	}
	w, err := c.carrier.world(ctx, bounds)
	defer w.close()
	var os []outcome
	if err == nil && c.way.play != nil {
		os, err = c.way.play(ctx, c, w)
	} else if err == nil {
		os, err = c.perform(ctx, w)
	}
	if err != nil {
		return "not played", err.Error()
	}
	return summary(os), c.way.judge(os)
}

// ends returns the device that ends, and the other.
func (c *cell) ends(w *world) (ender, other *device) {
	if c.side == caller {
		return w.caller, w.acceptor
	}
	return w.acceptor, w.caller
}

// stage opens the channel: the link's caller does.
func (c *cell) stage(ctx context.Context, w *world) (*stage, error) {
	p, err := open(ctx, w.caller, w.acceptor, "channel", peerlink.OnlyIfConnected)
	s := &stage{listener: p.listener, writer: p.opened, reader: p.accepted, time: enough}
	s.ender, s.other = c.ends(w)
	if (c.side == caller) == c.way.byReader {
		s.writer, s.reader = s.reader, s.writer
	}
	if c.pace == absent {
		s.time = little
	}
	return s, err
}

// perform has the programs of both sides run until each has heard its end.
func (c *cell) perform(ctx context.Context, w *world) ([]outcome, error) {
	s, err := c.stage(ctx, w)
	if err != nil {
		return nil, err
	}
	size, late := fewBytes, c.way.byReader && c.way.cuts // late: the writer hears when all is over
	if c.pace == fast && !late {
		size = manyBytes
	}
	var o outcome
	var programs sync.WaitGroup
	begun, ended, piece := make(chan struct{}), make(chan struct{}), make(chan struct{})
	programs.Go(func() {
		r := &progress{conn: s.reader}
		switch c.pace {
		case slow:
			_ = r.some(1 << 10)
			close(piece)
			<-begun
		case absent:
			<-ended
		}
		if o.got, o.read = r.all(); o.read == io.EOF {
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
	hear := func() {
		o.heard = c.way.hears(s.writer)
		_ = s.writer.Close()
	}
	close(begun)
	if c.way.hears != nil && !late {
		programs.Go(hear)
	}
	o.end = c.way.end(ctx, s)
	close(ended)
	if late {
		hear()
	}
	programs.Wait()
	return []outcome{o}, err
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

// progress is a reader's.
type progress struct {
	conn io.Reader
	n    int
	err  error
}

// errWrong is for bytes that were not written so.
var errWrong = errors.New("other bytes than were written")

// some reads n bytes more, and returns why it did not.
func (r *progress) some(n int) error {
	p := make([]byte, n)
	for n > 0 && r.err == nil {
		var k int
		k, r.err = r.conn.Read(p[:n])
		if string(p[:k]) != string(pattern(r.n, k)) {
			r.err = errWrong
		}
		r.n, n = r.n+k, n-k
	}
	if n == 0 && !errors.Is(r.err, errWrong) {
		return nil
	}
	return r.err
}

// all reads until the end, and returns how much and why it ended.
func (r *progress) all() (int, error) {
	for r.err == nil {
		_ = r.some(32 << 10)
	}
	return r.n, r.err
}
