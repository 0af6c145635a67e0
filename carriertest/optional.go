package carriertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"peerlink"
)

// The methods that a stream may have besides those of net.Conn. What each must do,
// and what a link gains by it, stands in docs/carriers.md.
type (
	eagerConn interface {
		net.Conn
		WriteNow(p []byte) (int, error)
	}
	stagingConn interface {
		eagerConn
		Stage(head, body []byte) bool
	}
	halfConn     interface{ CloseWrite() error }
	framedConn   interface{ FrameSize() int }
	routedConn   interface{ Path() peerlink.Path }
	datagramConn interface {
		SendDatagram(p []byte) error
		ReceiveDatagram(ctx context.Context) ([]byte, error)
	}
	measuredConn interface{ MaxDatagram() int }
)

// mostUnread is more than any stream holds without a reader.
const mostUnread = 64 << 20

// pieces are the lengths of what is written, over and over: less and more than a
// packet, and than a frame.
var pieces = []int{1, 100, 4, 20000, 5, 70000}

// output writes the pattern, and notes how far it is.
type output struct {
	eagerConn
	n     int
	sure  int  // of n, what WriteNow has taken without leaving anything to Write
	waits bool // WriteNow has left something to Write
	rest  int  // of its piece
}

// writeNow offers a piece, as a link does. What was taken must not be kept.
func (o *output) writeNow(size int) error {
	p := pattern(o.n, size)
	n, err := o.WriteNow(p)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("WriteNow waits for its reader")
	case n < 0 || n > size || err != nil && err != syscall.EAGAIN:
		return errors.Join(fmt.Errorf("WriteNow has taken %d of %d bytes", n, size), err)
	case !bytes.Equal(p, pattern(o.n, size)):
		return errors.New("WriteNow has changed what it was given")
	}
	clear(p)
	o.n += n
	if o.waits, o.rest = n < size || err != nil, size-n; !o.waits {
		o.sure = o.n
	}
	return nil
}

// write writes so many bytes, perhaps none; what WriteNow has taken is sent, too.
func (o *output) write(size int) error {
	n, err := o.Write(pattern(o.n, size))
	if o.n += n; err == nil && n < size {
		err = fmt.Errorf("Write has returned %d of %d bytes and no error", n, size)
	}
	o.waits = false
	return err
}

// fill offers pieces until one has to wait.
func (o *output) fill() error {
	for i := 0; !o.waits; i++ {
		if err := o.writeNow(pieces[i%len(pieces)]); err != nil {
			return err
		}
		if o.n > mostUnread {
			return fmt.Errorf("WriteNow has taken %d bytes that nobody reads", o.n)
		}
	}
	return nil
}

// mixed writes in both ways, up to the byte to. Then it ends its direction, if the
// stream can: a reader does not wait for what was lost.
func (o *output) mixed(to int) (err error) {
	for i := 0; o.n < to-1 && err == nil; i++ {
		size := min(pieces[i%len(pieces)], to-1-o.n)
		if o.waits {
			err = o.write(o.rest)
		} else {
			err = o.writeNow(size)
		}
	}
	if err == nil {
		err = o.write(to - o.n)
	}
	if half, ok := o.eagerConn.(halfConn); ok && err == nil {
		err = half.CloseWrite()
	}
	return err
}

// input reads, and closes the stream where that fails: its writer must not wait.
type input struct {
	progress
	far net.Conn
}

func (r *input) must(n int) error {
	err := r.some(n)
	if err != nil {
		_ = r.far.Close()
	}
	return err
}

// eager holds a stream to the rules of WriteNow.
func eager(_ context.Context, near, far net.Conn) error {
	conn, ok := near.(eagerConn)
	if !ok {
		return errors.ErrUnsupported
	}
	out, in := &output{eagerConn: conn}, &input{progress{conn: far}, far}
	if err := out.fill(); err != nil { // without a reader: a WriteNow that waits never returns
		return err
	}
	if err := in.must(out.sure); err != nil { // without a further call
		return errors.Join(fmt.Errorf("WriteNow has taken %d bytes and left nothing to Write, and %d have arrived", out.sure, in.n), err)
	}
	to := out.n + manyBytes
	var faults [4]error
	var all sync.WaitGroup
	all.Go(func() { faults[0] = out.mixed(to) })
	all.Go(func() { faults[1] = in.must(to - in.n) })
	all.Go(func() { _, faults[2] = far.Write(pattern(0, manyBytes)) })
	all.Go(func() { faults[3] = (&progress{conn: near}).some(manyBytes) })
	all.Wait()
	if err := errors.Join(faults[:]...); err != nil {
		return err
	}
	_ = near.Close()
	if n, err := conn.WriteNow([]byte{0}); n != 0 || err == nil {
		return errors.Join(fmt.Errorf("WriteNow after Close has taken %d bytes, or says nothing", n), err)
	}
	if n, _ := in.all(); n != to {
		return fmt.Errorf("%d bytes were taken, and %d have arrived", to, n)
	}
	return nil
}

// staging holds a stream to the rules of Stage.
func staging(ctx context.Context, near, far net.Conn) error {
	conn, ok := near.(stagingConn)
	if _, alone := near.(interface {
		Stage(head, body []byte) bool
	}); alone && !ok {
		return errors.New("Stage without WriteNow is never called")
	}
	if !ok || far.SetReadDeadline(time.Now().Add(soon)) != nil {
		return errors.ErrUnsupported
	}
	out, in := &output{eagerConn: conn}, &input{progress{conn: far}, far}
	if err := out.stage(conn); err != nil {
		return err
	}
	if err := in.some(1); !hung(err) {
		return errors.Join(errors.New("the far end reads what was staged and not sent"), err)
	}
	in.err = nil
	to := out.n + fewBytes
	var sent, got error
	var both sync.WaitGroup
	both.Go(func() {
		if sent = out.writeNow(0); sent == nil {
			sent = out.mixed(to)
		}
	})
	both.Go(func() { got = errors.Join(bound(ctx, far), in.must(to)) })
	both.Wait()
	if err := errors.Join(sent, got); err != nil {
		return err
	}
	_ = near.Close()
	if conn.Stage(nil, []byte{0}) {
		return errors.New("Stage after Close has returned true")
	}
	if n, _ := in.all(); n != to {
		return fmt.Errorf("%d bytes were taken, and %d have arrived", to, n)
	}
	return nil
}

// stage stages pieces until one does not fit.
func (o *output) stage(conn stagingConn) error {
	for i := 0; o.n <= mostUnread; i++ {
		p := pattern(o.n, pieces[i%len(pieces)])
		head := min(4, len(p))
		taken := conn.Stage(p[:head], p[head:])
		clear(p)
		if !taken {
			return nil
		}
		o.n += len(p)
	}
	return fmt.Errorf("Stage has taken %d bytes that nobody reads", o.n)
}

// framed holds a stream to the rules of FrameSize.
func framed(_ context.Context, near, far net.Conn) error {
	conn, ok := near.(framedConn)
	if !ok {
		return errors.ErrUnsupported
	}
	first := conn.FrameSize()
	err := carry(near, far, fewBytes)
	if again := conn.FrameSize(); first < 1<<10 || first > 65535 || again != first {
		err = errors.Join(err, fmt.Errorf("FrameSize is %d and then %d, want one size of 1 KiB to 65 535 bytes", first, again))
	}
	return err
}

// routed holds a stream to the rules of Path.
func routed(_ context.Context, near, far net.Conn) error {
	conn, ok := near.(routedConn)
	if !ok {
		return errors.ErrUnsupported
	}
	first := conn.Path()
	err := carry(near, far, fewBytes)
	if again := conn.Path(); again != first || first != (peerlink.Path{}) && first.Engine == "" {
		err = errors.Join(err, fmt.Errorf("Path is %+v and then %+v, want one with an Engine, or the zero value", first, again))
	}
	return err
}

// longest returns how long a datagram of a stream may be now.
func longest(c datagramConn) int {
	if m, ok := c.(measuredConn); ok {
		return m.MaxDatagram()
	}
	return 1100
}

// datagrams holds a stream to the rules of SendDatagram and ReceiveDatagram.
func datagrams(ctx context.Context, near, far net.Conn) error {
	from, ok1 := near.(datagramConn)
	to, ok2 := far.(datagramConn)
	if !ok1 || !ok2 || longest(from) == 0 {
		return errors.ErrUnsupported
	}
	came := make(chan error, 1)
	go func() {
		p, err := to.ReceiveDatagram(ctx)
		if err == nil && (len(p) == 0 || !bytes.Equal(p, pattern(0, len(p)))) {
			err = errWrong
		}
		came <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		p := pattern(0, longest(from))
		_ = from.SendDatagram(p) // or drops it
		clear(p)                 // it was not kept
		select {
		case err := <-came:
			if _, late := from.ReceiveDatagram(ended(ctx)); late == nil {
				return errors.New("ReceiveDatagram has gone on past its context")
			}
			return err
		case <-tick.C:
		}
	}
}
