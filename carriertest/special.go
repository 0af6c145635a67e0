package carriertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/multiplex"
)

// queued ends before a channel is accepted that its opener has written to and ended.
// The opener may end its link so; then the channel is accepted all the same.
func queued(ctx context.Context, c *cell, w *world) ([]outcome, error) {
	s := &stage{time: enough}
	s.ender, s.other = c.ends(w)
	from, to := s.ender, s.other
	if c.way.byReader {
		from, to = to, from
	}
	var err error
	if s.listener, err = to.Listen(scheme + "channel"); err != nil {
		return nil, err
	}
	if s.writer, err = ask(ctx, from, to.id.DeviceID(), "channel", peerlink.OnlyIfConnected); err != nil {
		return nil, err
	}
	o := outcome{read: errNotAccepted}
	if o.wrote, err = s.writer.Write(pattern(0, fewBytes)); err != nil {
		return nil, err
	}
	err = errors.Join(s.writer.CloseWrite(), c.way.end(ctx, s))
	o.heard = answer(s.writer)
	if !c.way.byReader && err == nil {
		if s.reader, err = take(ctx, s.listener); err == nil {
			o.got, o.read = (&progress{conn: s.reader}).all()
		}
	}
	return []outcome{o}, err
}

const (
	// crowd is how many channels fill a small memory, with so many bytes each.
	crowd      = 32
	crowdBytes = 48 << 10
)

// smallMemory holds a twelfth of the crowd's bytes, and smallBudget two thirds.
func smallMemory() multiplex.Config {
	return multiplex.Config{Window: 64 << 10, MaxBuffered: 128 << 10}
}

func smallBudget() multiplex.Config {
	return multiplex.Config{Budget: multiplex.NewBudget(1 << 20)}
}

// crowded writes more on many channels than the side that ends may hold.
func crowded(ctx context.Context, c *cell, w *world) ([]outcome, error) {
	os := make([]outcome, crowd)
	full := make(chan struct{}) // closed once each writer has written all or waits
	var programs, busy sync.WaitGroup
	reading, writing := c.ends(w)
	for i := range crowd {
		busy.Add(1)
		programs.Go(func() {
			waits := sync.OnceFunc(busy.Done)
			defer waits()
			p, err := open(ctx, writing, reading, fmt.Sprint("channel/", i), peerlink.OnlyIfConnected)
			if err != nil {
				os[i] = outcome{read: err, heard: err} // told
				return
			}
			os[i] = c.pour(p, waits, full)
		})
	}
	busy.Wait()
	close(full)
	programs.Wait()
	return os, nil
}

// pour is one channel of a crowd.
func (c *cell) pour(p pair, waits func(), full <-chan struct{}) (o outcome) {
	written := make(chan struct{})
	var programs sync.WaitGroup
	programs.Go(func() {
		r := &progress{conn: p.accepted}
		if c.pace == slow {
			_ = r.some(1 << 10)
		}
		if c.pace != fast {
			<-full
		}
		if o.got, o.read = r.all(); o.read == io.EOF {
			_ = p.accepted.Close()
		} else {
			_ = p.accepted.Reset(channel.CodeUser)
		}
	})
	programs.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		defer waits()
		for p.opened.Stats().Stalls == 0 { // no event tells of a stall
			select {
			case <-written:
				return
			case <-tick.C:
			}
		}
	})
	o.wrote, o.heard = p.opened.Write(pattern(0, crowdBytes))
	close(written)
	if o.heard == nil {
		_ = p.opened.CloseWrite()
		o.heard = answer(p.opened)
	}
	programs.Wait()
	return o
}
