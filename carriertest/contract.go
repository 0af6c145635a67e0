package carriertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"peerlink"
	"peerlink/identity"
)

// check is a rule of peerlink.Dialer and peerlink.Listener. Its error matches
// errors.ErrUnsupported if the carrier does not offer the thing.
type check struct {
	name string
	test func(ctx context.Context, w *world) error
}

// checks are the rules; each has two devices without managers.
var checks = []check{
	{"names", names},
	{"Dial of a device that is not there", unknownDevice},
	{"Dial after its context", endedContext},
	{"Dial where another device answers", wrongDevice},
	{"Dial of a device that does not trust the caller", distrusted},
	{"Dial of a device that the caller does not trust", distrusting},
	{"Dial, several at once", dialsAtOnce},
	{"Accept after its context", acceptContext},
	{"Accept after Close", acceptClosed},
	{"StopAccepting", stopAccepting},
	{"stream, much at once both ways", stream(bigWrites).check},
	{"stream, deadlines", stream(deadlines).check},
	{"stream, CloseWrite", stream(halfClose).check},
	{"stream, Close", stream(closeStream).check},
	{"stream, datagrams", stream(datagrams).check},
	{"stream, WriteNow", stream(eager).check},
	{"stream, Stage", stream(staging).check},
	{"stream, FrameSize", stream(framed).check},
	{"stream, Path", stream(routed).check},
}

// soon bounds a Dial that cannot succeed, and may go on for as long as it is let.
const soon = 300 * time.Millisecond

// pass applies the check, in bounded time.
func (k check) pass(ctx context.Context, c Carrier) (err error) {
	if !within(ctx, func(ctx context.Context) {
		var w *world
		if w, err = c.bare(ctx); err == nil {
			err = k.test(ctx, w)
		}
		w.close()
	}) {
		return errHang
	}
	return err
}

// stream is a check of a stream; both ends are closed after it.
type stream func(ctx context.Context, near, far net.Conn) error

func (s stream) check(ctx context.Context, w *world) error {
	near, far, err := w.meet(ctx)
	if err != nil {
		return err
	}
	_, _ = bound(ctx, near), bound(ctx, far) // a stream may be without deadlines
	err = s(ctx, near, far)
	_, _ = near.Close(), far.Close() // the check may have closed them
	return err
}

func names(_ context.Context, w *world) error {
	a, b := w.caller.end, w.acceptor.end
	wrong := a.Dialer.Name() == "" || a.Dialer.Name() != b.Dialer.Name()
	for i, l := range a.Listeners {
		wrong = wrong || l.Name() == "" || l.Name() != b.Listeners[i].Name()
	}
	if wrong {
		return errors.New("a Dialer or a Listener has no name, or another one than the other device's")
	}
	return nil
}

// refused dials, which must not succeed, and returns why it did not.
func (d *device) refused(ctx context.Context, to identity.DeviceID) (cause, fault error) {
	conn, _, err := d.end.Dialer.Dial(ctx, to)
	switch {
	case err == nil:
		return nil, errors.Join(errors.New("Dial has made a stream"), conn.Close())
	case conn != nil:
		return err, errors.New("Dial has returned a stream with an error")
	}
	return err, nil
}

func unknownDevice(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	_, err := w.caller.refused(ctx, identity.DeviceID{1})
	return err
}

func endedContext(ctx context.Context, w *world) error {
	_, err := w.caller.refused(ended(ctx), w.acceptor.id.DeviceID())
	return err
}

// ended returns a context that has ended.
func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

func wrongDevice(ctx context.Context, w *world) error {
	other := identity.DeviceID{1}
	if err := w.site.Announce(other, w.site.Address(w.acceptor.id.DeviceID())); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	_, err := w.given(short, other)
	return err
}

// given is refused where the far end accepts. The caller may be proven there before
// it gives up.
func (w *world) given(ctx context.Context, to identity.DeviceID) (cause, fault error) {
	there := w.acceptor.accept(ctx)
	cause, fault = w.caller.refused(ctx, to)
	w.acceptor.release()
	if m := <-there; m.err == nil {
		_ = m.conn.Close()
	}
	return cause, fault
}

func distrusted(ctx context.Context, w *world) error {
	if err := w.acceptor.trust.Set(w.caller.id.DeviceID(), identity.Banned); err != nil {
		return err
	}
	there := w.acceptor.accept(ctx)
	conn, _, err := w.caller.end.Dialer.Dial(ctx, w.acceptor.id.DeviceID())
	if err == nil { // the far end may refuse after the caller's last step
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil {
		return errors.New("a device that does not trust the caller has written to it")
	}
	w.acceptor.release()
	if m := <-there; m.err == nil {
		return errors.Join(errors.New("Accept has returned a stream of a banned device"), m.conn.Close())
	}
	return nil
}

func distrusting(ctx context.Context, w *world) error {
	if err := w.caller.trust.Set(w.acceptor.id.DeviceID(), identity.Banned); err != nil {
		return err
	}
	cause, err := w.given(ctx, w.acceptor.id.DeviceID())
	if err == nil && !errors.Is(cause, identity.ErrNotTrusted) {
		err = fmt.Errorf("the error does not match identity.ErrNotTrusted: %w", cause)
	}
	return err
}

func dialsAtOnce(ctx context.Context, w *world) error {
	var faults [8]error
	var all sync.WaitGroup
	for i := range len(faults) / 2 {
		all.Go(func() {
			near, _, err := w.caller.end.Dialer.Dial(ctx, w.acceptor.id.DeviceID())
			if err == nil {
				_ = bound(ctx, near)
				_, err = near.Write(pattern(0, fewBytes))
				_, _ = near.Read(make([]byte, 1)) // until the far end has read
				_ = near.Close()
			}
			faults[2*i] = err
		})
		all.Go(func() {
			m := <-w.acceptor.accept(ctx)
			if m.err == nil {
				_ = bound(ctx, m.conn)
				m.err = errors.Join((&progress{conn: m.conn}).some(fewBytes), m.conn.Close())
			}
			faults[2*i+1] = m.err
		})
	}
	all.Wait()
	return errors.Join(faults[:]...)
}

func acceptContext(ctx context.Context, w *world) error {
	if m := <-w.acceptor.accept(ended(ctx)); m.err == nil || errors.Is(m.err, net.ErrClosed) {
		return errors.Join(errors.New("Accept has returned no error of its context"), m.err)
	}
	return nil
}

// over holds that no Accept goes on, and that nothing more is made.
func over(ctx context.Context, w *world, pending <-chan met) error {
	for _, c := range []<-chan met{pending, w.acceptor.accept(ctx)} {
		if m := <-c; !errors.Is(m.err, net.ErrClosed) {
			return errors.Join(errors.New("Accept has returned no error that matches net.ErrClosed"), m.err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	_, err := w.caller.refused(ctx, w.acceptor.id.DeviceID())
	return err
}

func acceptClosed(ctx context.Context, w *world) error {
	pending := w.acceptor.accept(ctx)
	for _, l := range w.acceptor.end.Listeners {
		_ = l.Close()
		_ = l.Close() // once more does nothing
	}
	return over(ctx, w, pending)
}

func stopAccepting(ctx context.Context, w *world) error {
	return stream(func(ctx context.Context, near, far net.Conn) error {
		pending := w.acceptor.accept(ctx)
		for _, l := range w.acceptor.end.Listeners {
			s, ok := l.(peerlink.Stopper)
			if !ok {
				return errors.ErrUnsupported
			}
			s.StopAccepting()
		}
		if err := over(ctx, w, pending); err != nil {
			return err
		}
		if err := carry(near, far, fewBytes); err != nil {
			return fmt.Errorf("a stream that was accepted before: %w", err)
		}
		back := &world{caller: w.acceptor, acceptor: w.caller}
		if err := stream(bigWrites).check(ctx, back); err != nil {
			return fmt.Errorf("a Dial of the device itself: %w", err)
		}
		return nil
	}).check(ctx, w)
}

// carry sends bytes both ways at once.
func carry(near, far net.Conn, n int) error {
	var faults [4]error
	var all sync.WaitGroup
	for i, c := range []net.Conn{near, far} {
		all.Go(func() { _, faults[2*i] = c.Write(pattern(0, n)) })
		all.Go(func() { faults[2*i+1] = (&progress{conn: c}).some(n) })
	}
	all.Wait()
	return errors.Join(faults[:]...)
}

func bigWrites(_ context.Context, near, far net.Conn) error { return carry(near, far, manyBytes) }

func deadlines(ctx context.Context, near, far net.Conn) error {
	if near.SetReadDeadline(time.Unix(1, 0)) != nil {
		return errors.ErrUnsupported
	}
	_, err := near.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() || !hung(err) {
		return errors.Join(errors.New("a Read past its deadline has returned no error that says so"), err)
	}
	return errors.Join(bound(ctx, near), carry(near, far, fewBytes))
}

func halfClose(_ context.Context, near, far net.Conn) error {
	half, ok := near.(halfConn)
	if !ok {
		return errors.ErrUnsupported
	}
	var back error
	var other sync.WaitGroup
	other.Go(func() {
		n, err := (&progress{conn: far}).all()
		if n != fewBytes || err != io.EOF {
			back = fmt.Errorf("the far end has read %d of %d bytes, and %w", n, fewBytes, err)
		}
		_, err = far.Write(pattern(0, fewBytes))
		back = errors.Join(back, err)
	})
	_, err := near.Write(pattern(0, fewBytes))
	err = errors.Join(err, half.CloseWrite(), (&progress{conn: near}).some(fewBytes))
	other.Wait()
	return errors.Join(err, back)
}

func closeStream(_ context.Context, near, far net.Conn) error {
	var own, theirs error // of the Reads
	n := 0
	var reading sync.WaitGroup
	reading.Go(func() { _, own = near.Read(make([]byte, 1)) })
	reading.Go(func() { n, theirs = (&progress{conn: far}).all() })
	_, err := near.Write(pattern(0, fewBytes))
	_ = near.Close()
	_, late := near.Write([]byte{0})
	reading.Wait()
	switch {
	case err != nil:
		return err
	case own == nil || late == nil:
		return errors.New("a Read under way or a Write after Close has succeeded")
	case hung(theirs) || n < fewBytes && theirs == io.EOF:
		return fmt.Errorf("the far end has read %d of %d bytes, and %w", n, fewBytes, theirs)
	}
	return nil
}

// leftovers returns the goroutines that are left of a whole life of two devices:
// the ones that began within it, directly or through another.
func leftovers(ctx context.Context, c Carrier) (err error) {
	label := fmt.Sprintf("%p", &c)
	pprof.Do(ctx, pprof.Labels("carriertest", label), func(ctx context.Context) {
		err = check{test: stream(bigWrites).check}.pass(ctx, c)
	})
	left := labelled(label)
	for end := time.Now().Add(patience); err == nil && left != "" && time.Now().Before(end); left = labelled(label) {
		time.Sleep(5 * time.Millisecond) // no event tells of a goroutine's end
	}
	if err == nil && left != "" {
		err = fmt.Errorf("goroutines are left:\n%s", left)
	}
	return err
}

// labelled returns the stacks of goroutines with a label.
func labelled(label string) (stacks string) {
	var all strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // into memory
	for g := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(g, `"`+label+`"`) {
			stacks += g + "\n\n"
		}
	}
	return stacks
}
