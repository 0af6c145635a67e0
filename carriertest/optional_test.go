//go:build unix

package carriertest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"

	"peerlink"
	"peerlink/internal/rawsock"
)

// rich is a stream with optional methods.
type rich struct {
	net.Conn
	raw    *rawsock.Socket
	staged []byte
	held   []byte // of p, a copy
	kept   []byte // of p itself
	closed bool
	faults
}

// faults are what a rich stream does wrong.
type faults struct {
	greedy  bool // WriteNow says that it took what it did not
	mute    bool // WriteNow holds a part back and does not say so
	vain    bool // WriteNow clears what it was given
	patient bool // WriteNow waits
	keeps   bool // WriteNow sends the end of what it was given with the next call
	double  bool // WriteNow sends a part twice
	hasty   bool // WriteNow leaves what is staged behind
	torn    bool // Stage copies a part of what it refuses
	shown   bool // Stage sends
	grows   bool // FrameSize and Path change
	small   bool // FrameSize is of no use
	frames  int
}

// with makes streams rich, with faults.
func with(f faults) func(*plain) {
	return func(p *plain) {
		p.wrap = func(c net.Conn) net.Conn { return &rich{Conn: c, raw: rawsock.New(c), faults: f} }
	}
}

func (r *rich) WriteNow(p []byte) (int, error) {
	if !r.hasty {
		n, err := r.raw.Write(r.staged)
		if r.staged = r.staged[n:]; err != nil || len(r.staged) > 0 {
			return 0, syscall.EAGAIN
		}
	}
	if r.patient {
		return r.Conn.Write(p)
	}
	if r.held = append(r.held, r.kept...); len(r.held) > 0 {
		n, err := r.raw.Write(r.held)
		r.kept = nil
		if r.held = r.held[n:]; err != nil || len(r.held) > 0 {
			return 0, syscall.EAGAIN
		}
	}
	n, err := r.raw.Write(p)
	switch {
	case r.mute && n < len(p) && len(p) > 1:
		r.held = slices.Clone(p[n:])
		return len(p), nil
	case r.keeps && n < len(p) && len(p) > 1:
		r.kept = p[n:]
		return len(p), nil
	case r.vain:
		clear(p)
	case r.greedy && err == nil:
		n = len(p)
	case r.double && n == len(p):
		_, err = r.raw.Write(p)
	}
	return n, err
}

func (r *rich) Write(p []byte) (int, error) {
	_, err := r.Conn.Write(slices.Concat(r.held, r.kept, r.staged))
	if r.held, r.kept, r.staged = nil, nil, nil; err != nil {
		return 0, err
	}
	return r.Conn.Write(p)
}

func (r *rich) Stage(head, body []byte) bool {
	if r.closed {
		return false
	}
	if len(r.staged)+len(head)+len(body) > 1<<18 {
		if r.torn {
			r.staged = append(r.staged, head...)
		}
		return false
	}
	r.staged = slices.Concat(r.staged, head, body)
	if r.shown {
		_, _ = r.WriteNow(nil)
	}
	return true
}

func (r *rich) FrameSize() int {
	if r.small {
		return 100
	}
	if r.grows {
		r.frames++
	}
	return 1<<14 + r.frames
}

func (r *rich) Path() peerlink.Path {
	return peerlink.Path{Engine: string(rune('a' + r.FrameSize()%26))}
}

func (r *rich) CloseWrite() error { return r.Conn.(halfConn).CloseWrite() }

func (r *rich) Close() error {
	r.closed = true
	return r.Conn.Close()
}

// The rules of optional methods let a stream pass that has them right, and find
// what each fault breaks.
func TestRulesOfOptionalMethodsFindFaults(t *testing.T) {
	for _, c := range []struct {
		rule   string
		faults []faults
	}{
		{"stream, WriteNow", []faults{{greedy: true}, {double: true}, {mute: true}, {keeps: true}, {vain: true}, {patient: true}}},
		{"stream, Stage", []faults{{hasty: true}, {torn: true}, {shown: true}}},
		{"stream, FrameSize", []faults{{grows: true}, {small: true}}},
		{"stream, Path", []faults{{grows: true}}},
	} {
		k := checks[slices.IndexFunc(checks, func(k check) bool { return k.name == c.rule })]
		if err := k.pass(t.Context(), carrier(with(faults{}))); err != nil {
			t.Errorf("%s, without a fault: %v", c.rule, err)
		}
		for _, f := range c.faults {
			t.Run(fmt.Sprintf("%s/%+v", c.rule, f), func(t *testing.T) {
				t.Parallel()
				// What never arrives is found when the time is over; none that is right needs so long.
				ctx, cancel := context.WithTimeout(t.Context(), patience/6)
				defer cancel()
				if k.pass(ctx, carrier(with(f))) == nil {
					t.Error("was not found")
				}
			})
		}
	}
}
