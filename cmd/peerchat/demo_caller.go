package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/cmd/peerchat/internal/transfer"
	"peerlink/identity"
)

// runMainEnv tells a test binary that it is to be peerchat itself.
const runMainEnv = "PEERCHAT_RUN_MAIN"

// newDemoCaller is Alice.
func newDemoCaller(o *options) *cobra.Command {
	return &cobra.Command{
		Use:    "caller DEVICE FILE...",
		Short:  "Alice's part of the demo",
		Hidden: true,
		Args:   counted(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			c := &caller{timeline: newTimeline(cmd.OutOrStdout(), true), bob: to.device}
			c.begin("alice up")
			acc, err := o.start(cmd)
			if err == nil {
				defer acc.Close()
				c.m = acc.ConnectionManager()
				if err = awaitReady(cmd.Context(), acc); err == nil {
					c.done("device %s, knows only bob's id", acc.Identity().DeviceID().Short())
					err = c.run(cmd.Context(), args[1:])
				}
			}
			if err != nil {
				c.show(line{Step: c.current, Error: err.Error()})
			}
			return err
		},
	}
}

// caller is Alice's side of a demo.
type caller struct {
	*timeline
	m   *peerlink.ConnectionManager
	bob identity.DeviceID
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

func (c *caller) run(ctx context.Context, files []string) error {
	s := summary{Files: make([]fileReport, len(files))}
	c.begin("connect")
	began := time.Now()
	chat, err := c.m.ConnectDevice(c.traced(ctx), c.bob, "chat://bob", peerlink.ConnectOptions{})
	if err != nil {
		return err
	}
	defer chat.Close()
	c.begin("first byte")
	if _, err := io.WriteString(chat, "hello bob\n"); err != nil {
		return err
	}
	answers := bufio.NewReader(chat)
	if _, err := answers.Peek(1); err != nil {
		return err
	}
	s.ConnectMS = ms(time.Since(began))
	text, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	c.done("said “hello bob”, bob answered “%s”, %.2f ms after ConnectDevice", printable(text[:len(text)-1]), s.ConnectMS)
	if err := c.sendAll(ctx, files, &s); err != nil {
		return err
	}
	c.begin("one link")
	if cs := c.m.Connections(); len(cs) != 1 {
		return fmt.Errorf("there are %d links to bob, want one for all channels", len(cs))
	}
	c.done("%d channels over it: %s", 1+len(files), c.m.Connections()[0].Path)
	c.p.json(struct {
		line
		summary
	}{line{Step: "summary", OK: true, MS: ms(time.Since(c.start))}, s})
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
	base := filepath.Base(name)
	f, err := os.Open(name)
	if err != nil {
		return r, 0, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return r, 0, 0, err
	}
	began := time.Now()
	ch, err := c.m.ConnectDevice(ctx, c.bob, "file://"+base, peerlink.ConnectOptions{})
	if err != nil {
		return r, 0, 0, err
	}
	defer ch.Close()
	open = time.Since(began)
	c.show(line{Step: "channel open", MS: ms(open), OK: true, Detail: fmt.Sprintf("file://%s (channel %d, same link)", base, ch.ID())})
	began = time.Now()
	last := began
	sum, err := transfer.Send(ch, base, st.Size(), f, func(int) { last = time.Now() })
	if err != nil {
		return r, 0, 0, err
	}
	if took := last.Sub(began); took > 0 { // of the content alone: not bob's fsync
		speed = math.Round(float64(st.Size())/1e5/took.Seconds()) / 10
	}
	return fileReport{Name: base, Bytes: st.Size(), SHA256: fmt.Sprintf("%x", sum)}, open, speed, nil
}
