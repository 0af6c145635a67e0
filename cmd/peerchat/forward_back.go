package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
	"peerlink/internal/pause"
)

const (
	// A forward from there that was lost is asked for again after firstAsk, and
	// then ever more rarely, down to every lastAsk; all with jitter.
	firstAsk = 500 * time.Millisecond
	lastAsk  = 30 * time.Second
	// refusedFor is how long the device may say no to that: it may not have noticed
	// yet that the old link is gone.
	refusedFor = time.Minute
)

// back is a forward from there that is in force.
type back struct {
	c  *control.Conn // lives as long as the device listens
	l  net.Listener  // of what it sends
	at forward.Address
}

func (b *back) close() {
	_ = b.c.Close()
	_ = b.l.Close()
}

// fromThere has the device take connections, and asks for it again when the link
// was lost.
func (f *forwarder) fromThere(ctx context.Context, sp forward.Spec, start func(func() error)) error {
	b, err := f.ask(ctx, sp.Listen)
	if err != nil {
		return err
	}
	f.tell("there", b.at.String(), sp.Target)
	start(func() error {
		for {
			err := f.hold(ctx, b, sp.Target)
			var daemon *control.EndedError
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.As(err, &daemon):
				return err
			}
			f.lost(b.at, sp.Target, err)
			if b, err = f.again(ctx, sp.Listen, b.at); err != nil {
				return err
			}
			f.tell("there", b.at.String(), sp.Target)
		}
	})
	return nil
}

// ask has the device listen.
func (f *forwarder) ask(ctx context.Context, where forward.Address) (*back, error) {
	token := forward.NewToken()
	// From the device, or, where a contact is named, any device of that.
	l, err := f.s.client.ListenTo(ctx, control.Listen{Pattern: forward.BackURI(token), From: []identity.DeviceID{f.to.device}}, nil)
	if err != nil {
		return nil, err
	}
	c, err := f.s.connect(ctx, f.to, forward.URIListen)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	at, err := forward.Ask(ctx, c, where, token)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("-R %s: %w", where, err), l.Close())
	}
	return &back{c, l, at}, nil
}

// hold joins what comes until the device listens no more, and returns why.
func (f *forwarder) hold(ctx context.Context, b *back, target forward.Address) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	listens := make(chan struct{})
	go func() {
		defer close(listens)
		_, err := b.c.Read(make([]byte, 1)) // it says no more: this is its end
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("it was ended there")
		}
		cancel(err)
	}()
	err := forward.Relay(ctx, b.l, forward.RelayConfig{
		Note: f.failed(target),
		Open: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, target.Network, target.Addr)
		},
	})
	b.close()
	<-listens
	return err
}

// again asks until the device listens, as long as there is hope: at the address
// it had, so that whoever knows it need not be told, or else as at first.
func (f *forwarder) again(ctx context.Context, where, had forward.Address) (*back, error) {
	pauses := pause.Backoff(firstAsk, lastAsk)
	pauses.RandomizationFactor = 0.3
	var refused time.Time
	no := 0 // how often in a row
	for {
		if pause.For(ctx, pauses.NextBackOff()) != nil {
			return nil, context.Cause(ctx)
		}
		at := had
		if no > 2 && no%2 == 1 { // somebody else may have it by now
			at = where
		}
		b, err := f.ask(ctx, at)
		no++
		var said *forward.ServerError
		var daemon *control.EndedError
		switch {
		case err == nil:
			return b, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &daemon) || errors.Is(err, control.ErrNoDaemon):
			return nil, err
		case !errors.As(err, &said):
			refused, no = time.Time{}, 0
		case refused.IsZero():
			refused = time.Now()
		case time.Since(refused) > refusedFor:
			return nil, err
		}
	}
}

// lost says that connections are taken no more, for now.
func (f *forwarder) lost(at, target forward.Address, why error) {
	if f.o.json {
		f.p.json(ready{Step: "forward", Side: "there", Listen: at.String(), Target: target.String(), Error: why.Error()})
		return
	}
	fmt.Fprintf(f.note, "%s listens on %s no more: %s; it is asked again\n", f.who, printable(at.String()), printable(why.Error()))
}
