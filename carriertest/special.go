package carriertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/multiplex"
)

// queued ends a listener before it has accepted a channel, which the far end has
// written to and ended.
func queued(end func(ctx context.Context, d *device, l net.Listener) error) func(context.Context, *cell) (string, string) {
	return func(ctx context.Context, c *cell) (verdict, fault string) {
		w, err := newWorld(ctx, c.carrier, [2]multiplex.Config{})
		defer w.close()
		if err == nil {
			err = w.link(ctx)
		}
		if err != nil {
			return "not played", err.Error()
		}
		ender, other := c.ends(w)
		l, err := ender.Listen("carriertest://channel")
		if err != nil {
			return "not played", err.Error()
		}
		writer, err := ask(ctx, other, ender, "channel", peerlink.OnlyIfConnected)
		if err == nil {
			_, err = writer.Write(pattern(0, fewBytes))
		}
		if err != nil {
			return "not played", err.Error()
		}
		err = errors.Join(writer.CloseWrite(), end(ctx, ender, l))
		heard := answer(writer)
		verdict = "not accepted | " + kind(heard)
		switch {
		case err != nil:
			fault = err.Error()
		case heard == io.EOF:
			fault = "the writer heard a clean end of bytes that no program has seen"
		case hung(heard):
			fault = "the writer was never told"
		}
		return verdict, fault
	}
}

const (
	// crowd is how many channels fill a small memory, with so many bytes each.
	crowd      = 16
	crowdBytes = 48 << 10
)

// smallMemory holds a sixth of the crowd's bytes.
var smallMemory = multiplex.Config{Window: 64 << 10, MaxBuffered: 128 << 10}

// crowded writes more on many channels than the far end may hold.
func crowded(ctx context.Context, c *cell) (verdict, fault string) {
	var bounds [2]multiplex.Config
	bounds[c.side] = smallMemory
	w, err := newWorld(ctx, c.carrier, bounds)
	defer w.close()
	if err == nil {
		err = w.link(ctx)
	}
	if err != nil {
		return "not played", err.Error()
	}
	reading, writing := c.ends(w)
	outcomes := make([]outcome, crowd)
	full := make(chan struct{}) // no writer has anything to do but to wait
	var programs, waiting sync.WaitGroup
	for i := range crowd {
		waiting.Add(1)
		programs.Go(func() { outcomes[i] = c.one(ctx, fmt.Sprint("channel/", i), reading, writing, waiting.Done, full) })
	}
	waiting.Wait()
	close(full)
	programs.Wait()
	return c.all(outcomes)
}

// one is one channel of a crowd. waits is called once its writer has written all,
// or waits for its reader.
func (c *cell) one(ctx context.Context, name string, reading, writing *device, waits func(), full chan struct{}) (o outcome) {
	once := sync.OnceFunc(waits)
	defer once()
	p, err := open(ctx, writing, reading, name, peerlink.OnlyIfConnected)
	if err != nil {
		return outcome{heard: err, read: err}
	}
	var programs sync.WaitGroup
	programs.Go(func() {
		r := &progress{conn: p.accepted}
		if c.pace == slow {
			r.some(1 << 10)
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
	written := make(chan struct{})
	programs.Go(func() { watchStalls(p.opened, written, once) })
	if o.wrote, o.heard = p.opened.Write(pattern(0, crowdBytes)); o.heard == nil {
		_ = p.opened.CloseWrite()
		close(written)
		o.heard = answer(p.opened)
	} else {
		close(written)
	}
	programs.Wait()
	return o
}

// watchStalls calls waits when a Write has returned, or waits for credit. No event
// tells of the latter.
func watchStalls(c *channel.Socket, written <-chan struct{}, waits func()) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for c.Stats().Stalls == 0 {
		select {
		case <-written:
			waits()
			return
		case <-tick.C:
		}
	}
	waits()
}

// all judges a crowd's outcomes, and counts them by kind.
func (c *cell) all(outcomes []outcome) (verdict, fault string) {
	rule := way{clean: true, cuts: true} // who loses bytes is told
	count := map[string]int{}
	for _, o := range outcomes {
		count[o.String()]++
		if f := rule.judge(o); f != "" && fault == "" {
			fault = f
		}
	}
	var parts []string
	for _, text := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d × %s", count[text], text))
	}
	return strings.Join(parts, "; "), fault
}
