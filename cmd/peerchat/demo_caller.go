package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/identity"
	"peerlink/internal/pause"
)

// runMainEnv tells a test binary that it is to be peerchat itself.
const runMainEnv = "PEERCHAT_RUN_MAIN"

// newDemoCaller is Alice.
func newDemoCaller(o *options) *cobra.Command {
	return described("demo caller", &cobra.Command{
		Hidden: true,
		Args:   counted(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			bob, err := parseDevice(args[0])
			if err != nil {
				return usageError{err}
			}
			c := &caller{timeline: newTimeline(cmd.OutOrStdout(), true), bob: bob}
			c.begin("alice up")
			acc, err := o.start(cmd)
			if err == nil {
				defer acc.Close()
				c.m = acc.ConnectionManager()
				if err = awaitReady(cmd.Context(), acc); err == nil {
					c.done("device %s, knows only bob's id", acc.Identity().DeviceID().Short())
					err = c.run(cmd.Context(), acc.Dir(), args[1:])
				}
			}
			if err != nil {
				c.show(line{Step: c.current, Error: err.Error()})
			}
			return err
		},
	})
}

// caller is Alice's side of a demo.
type caller struct {
	*timeline
	m   *peerlink.ConnectionManager
	bob identity.DeviceID

	// Guarded by mu:
	connecting time.Time     // when the last ConnectDevice of the chat began
	answered   time.Duration // how long the first took: Bob's answer is his first byte
}

// traced notes a connect's milestones on the timeline.
func (c *caller) traced(ctx context.Context) context.Context {
	return peerlink.WithTrace(ctx, func(e peerlink.TraceEvent) {
		if e.Step == "attempt failed" { // a carrier that had no address, as a rule
			return
		}
		c.mu.Lock()
		l := line{Step: string(e.Step), MS: ms(e.At.Sub(c.began)), OK: true, Detail: e.Detail}
		c.began = e.At
		c.mu.Unlock()
		c.show(l)
	})
}

// demoNet is Alice's connections: what her chat connects for is traced.
type demoNet struct {
	*peerlink.ConnectionManager
	c      *caller
	failed chan error
}

// ConnectDevice is the manager's.
func (n demoNet) ConnectDevice(ctx context.Context, to identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error) {
	n.c.begin("connect")
	n.c.mu.Lock()
	n.c.connecting = time.Now()
	n.c.mu.Unlock()
	s, err := n.ConnectionManager.ConnectDevice(n.c.traced(ctx), to, uri, opts)
	if err != nil {
		pause.Tell(n.failed, err) // the first one tells
		return nil, err
	}
	n.c.mu.Lock()
	if n.c.answered == 0 {
		n.c.answered = time.Since(n.c.connecting)
	}
	n.c.mu.Unlock()
	n.c.begin("first byte")
	return s, nil
}

func (c *caller) run(ctx context.Context, dir string, files []string) error {
	s := summary{Files: make([]fileReport, len(files))}
	store, err := chat.Open(filepath.Join(dir, daemon.HistoryFile))
	if err != nil {
		return err
	}
	defer store.Close()
	links := demoNet{c.m, c, make(chan error, 1)}
	talk, err := chat.New(chat.Config{Store: store, Net: links})
	if err != nil {
		return err
	}
	defer talk.Close()
	if err := c.talk(ctx, talk, links.failed, &s); err != nil {
		return err
	}
	if err := c.sendAll(ctx, files, &s); err != nil {
		return err
	}
	c.begin("one link")
	if cs := c.m.Connections(); len(cs) != 1 {
		return fmt.Errorf("there are %d links to bob, want one for all channels", len(cs))
	}
	c.done("%d channels over it: %s", 2+len(files), c.m.Connections()[0].Path)
	c.p.json(struct {
		line
		summary
	}{line{Step: "summary", OK: true, MS: ms(time.Since(c.start))}, s})
	return nil
}

// talk says hello, until it is on Bob's disk and he has answered.
func (c *caller) talk(ctx context.Context, talk *chat.Service, failed <-chan error, s *summary) error {
	events := talk.Events(ctx)
	c.begin("connect")
	if _, err := talk.Send(c.bob, "hello bob"); err != nil {
		return err
	}
	answer, kept := "", time.Duration(0)
	for answer == "" || kept == 0 {
		select {
		case err := <-failed:
			return err
		case m := <-events:
			switch {
			case m.Mine && m.Mark == chat.Delivered:
				c.mu.Lock()
				s.ConnectMS, kept = ms(c.answered), time.Since(c.connecting)
				c.mu.Unlock()
			case !m.Mine:
				answer = m.Text
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.done("%.2f ms after ConnectDevice; said “hello bob”, on his disk after %.2f ms; bob answered “%s”", s.ConnectMS, ms(kept), printable(answer))
	return nil
}

// sendAll sends the files at once, each on its own channel.
func (c *caller) sendAll(ctx context.Context, files []string, s *summary) error {
	c.begin("files sent")
	took := make([]time.Duration, len(files)) // of opening the channel
	speed := make([]float64, len(files))
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	for i, name := range files {
		wg.Go(func() { s.Files[i], took[i], speed[i], errs[i] = c.send(ctx, name) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.SecondChannelMS, s.MBPerS = ms(took[0]), speed[0]
	c.done("%d files at once on their own channels, %.0f MB/s; verified and on bob's disk", len(files), s.MBPerS)
	return nil
}

func (c *caller) send(ctx context.Context, name string) (r fileReport, open time.Duration, speed float64, err error) {
	dial := func(ctx context.Context, uri string) (net.Conn, error) {
		began := time.Now()
		ch, err := c.m.ConnectDevice(ctx, c.bob, uri, peerlink.ConnectOptions{})
		if err != nil {
			return nil, err
		}
		open = time.Since(began)
		c.show(line{Step: "channel open", MS: ms(open), OK: true, Detail: fmt.Sprintf("%s for %s (channel %d, same link)", parcel.Scheme, filepath.Base(name), ch.ID())})
		return ch, nil
	}
	var began, last time.Time // of the content alone: not bob's fsync
	watch := func(e parcel.Event) {
		switch e.Kind {
		case parcel.Moved:
			if last = time.Now(); began.IsZero() {
				began = last
			}
		case parcel.Kept:
			r = fileReport{Name: e.Path, Bytes: e.Size, BLAKE3: fmt.Sprintf("%x", e.Sum)}
		}
	}
	if _, err := parcel.Send(ctx, parcel.SendConfig{Open: dial, Watch: watch, Patience: -1}, name); err != nil {
		return r, 0, 0, err
	}
	if took := last.Sub(began); took > 0 {
		speed = math.Round(float64(r.Bytes)/1e5/took.Seconds()) / 10
	}
	return r, open, speed, nil
}
