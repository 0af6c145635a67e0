package signalling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

// Line is a way to send devices small messages, encrypted and signed.
type Line interface {
	// Send blocks until the message is on its way, not until it has arrived.
	Send(ctx context.Context, to identity.DeviceID, msg []byte) error
	// Receive returns the next message for this device and its sender. An
	// error that matches net.ErrClosed is its last.
	Receive(ctx context.Context) (from identity.Peer, msg []byte, err error)
}

const (
	// queueLen is how many messages of members, and as many of strangers, may wait
	// for a reader; more are dropped.
	queueLen = 64
	// firstPause follows a line's passing failure, doubled up to maxPause.
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
)

// errClosed ends the reading of what was closed here.
var errClosed = fmt.Errorf("signalling: closed: %w", net.ErrClosed)

type received struct {
	from identity.Peer
	msg  []byte
}

// Read hands a line's messages to take, which must not block, until ctx ends or
// the line does; it returns why. A passing failure is waited out: 50 ms, doubled up
// to 5 s.
func Read(ctx context.Context, l Line, log *slog.Logger, take func(from identity.Peer, msg []byte)) error {
	pauses := pause.Backoff(firstPause, maxPause)
	for {
		from, msg, err := l.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			again := pauses.NextBackOff()
			log.Warn("signalling: receive", "err", err, "again in", again)
			if pause.For(ctx, again) != nil {
				return context.Cause(ctx)
			}
		default:
			pauses.Reset()
			take(from, msg)
		}
	}
}

// queue keeps what was received until its reader comes, with room of their own for
// the members of a trust store.
type queue struct {
	waiting *quota.Queue[received]
	trust   *identity.Trust
	endc    chan struct{} // closed when nothing more comes
	why     error         // set before
}

func newQueue(trust *identity.Trust) queue {
	return queue{waiting: quota.NewQueue[received](queueLen, queueLen), trust: trust, endc: make(chan struct{})}
}

// put returns false where the queue is full.
func (q *queue) put(from identity.Peer, msg []byte) bool {
	if q.trust.Member(from) {
		return q.waiting.Put(received{from, msg})
	}
	return q.waiting.PutStranger(received{from, msg})
}

func (q *queue) end(why error) {
	q.why = why
	close(q.endc)
}

// Receive returns the next message. It blocks until there is one, ctx ends, or
// nothing can come any more (net.ErrClosed), once what came before was taken.
func (q *queue) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	r, ok := q.waiting.Take(ctx, q.endc)
	switch {
	case ok:
		return r.from, r.msg, nil
	case ctx.Err() != nil:
		return identity.Peer{}, nil, fmt.Errorf("signalling: receive: %w", context.Cause(ctx))
	}
	return identity.Peer{}, nil, q.why
}
