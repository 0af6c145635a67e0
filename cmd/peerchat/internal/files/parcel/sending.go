package parcel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/internal/escape"
	"peerlink/internal/pause"
)

// sending is a sender on one channel: run announces entries and sends content,
// read takes what the receiver says.
type sending struct {
	*sender
	ctx    context.Context //nolint:containedctx // its life is one call of attempt
	cancel context.CancelCauseFunc
	w      *wire
	first  bool // no channel was before this
	stop   chan struct{}
	wake   chan struct{} // something below changed
	wg     sync.WaitGroup

	pieces pieceSize
	frame  []byte        // for files of one piece
	frames [ahead][]byte // for others

	mu             sync.Mutex
	answered       bool
	listed         bool   // the receiver has asked for all entries
	announced      uint64 // entries
	announcedBytes uint64
	open           map[uint64]*outgoing
	jobs           []job // at most two for each open entry
}

// outgoing is an entry without an outcome.
type outgoing struct {
	item
	index uint64
	ended atomic.Bool // it has an outcome
	at    int64       // up to where it is sent

	// sending.mu guards these.
	asked int        // how often the receiver wanted something of it
	sent  bool       // the whole content, or its sum
	sum   digest.Sum // of the whole content
}

// job is what the receiver asks for.
type job struct {
	*outgoing
	compare bool
	want    want
}

func newSending(ctx context.Context, cancel context.CancelCauseFunc, s *sender, conn net.Conn) *sending {
	o := &sending{
		sender: s, first: !s.agreed, ctx: ctx, cancel: cancel, w: newWire(conn), stop: make(chan struct{}),
		wake: make(chan struct{}, 1), open: map[uint64]*outgoing{},
	}
	o.wg.Go(func() { o.w.breathe(o.stop) })
	o.wg.Go(func() {
		err := o.read()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		cancel(fmt.Errorf("the receiver's channel: %w", err))
	})
	o.wg.Go(func() { // whatever ends the call frees who reads or writes
		<-ctx.Done()
		_ = conn.Close()
	})
	return o
}

// close ends the channel; what was written is delivered.
func (o *sending) close() {
	close(o.stop)
	o.cancel(nil)
	o.wg.Wait()
}

// run sends the offer, then entries and content until all have an outcome.
func (o *sending) run() error {
	err := o.all()
	if err == nil {
		return nil
	}
	select { // what the receiver said last tells more than a failed write
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	case <-time.After(lastWord):
		return err
	}
}

func (o *sending) all() error {
	if err := o.w.send(kindOffer, o.offer.elems()...); err != nil {
		return err
	}
	if err := o.await(func() bool { return o.answered || o.listed }); err != nil {
		return err
	}
	if err := o.list(); err != nil {
		return err
	}
	o.agreed = true
	next, stop := iter.Pull(o.source())
	defer stop()
	for more := true; ; {
		if more && o.room() {
			it, ok := next()
			if more = ok; ok {
				if err := o.announce(it); err != nil {
					return err
				}
			}
			continue
		}
		if err := o.w.flush(); err != nil {
			return err
		}
		if err := o.await(func() bool { return len(o.jobs) > 0 || len(o.open) == 0 || more && len(o.open) < window }); err != nil {
			return err
		}
		j, busy := o.nextJob()
		switch {
		case busy:
			if err := o.do(j); err != nil {
				return err
			}
		case !more && !o.busy():
			return o.w.send(kindEnd)
		}
	}
}

// list tells all entries, if the receiver wants that before its answer, and waits
// for it.
func (o *sending) list() error {
	o.mu.Lock()
	answered := o.answered
	o.mu.Unlock()
	if answered {
		return nil
	}
	var n, bytes uint64
	for it := range o.source() {
		if it.skip != nil || n >= o.offer.entries || bytes+uint64(it.size) > o.offer.bytes {
			continue // it will not be announced either
		}
		if err := o.w.queue(kindEntry, it.entry(n).elems()...); err != nil {
			return err
		}
		n++
		bytes += uint64(it.size)
	}
	if err := o.w.send(kindEnd); err != nil {
		return err
	}
	return o.await(func() bool { return o.answered })
}

// entry is the item as it is announced.
func (i item) entry(index uint64) entry {
	return entry{index: index, path: i.path, folder: i.folder, size: uint64(i.size), modified: uint64(max(0, i.modified.UnixMilli())), executable: i.exec}
}

// await waits until what f looks at, under the lock, is so.
func (o *sending) await(f func() bool) error {
	for {
		o.mu.Lock()
		so := f()
		o.mu.Unlock()
		if so {
			return nil
		}
		select {
		case <-o.wake:
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		}
	}
}

func (o *sending) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open) < window && len(o.jobs) == 0 || len(o.open) < window/2
}

func (o *sending) busy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open) > 0
}

func (o *sending) nextJob() (job, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.jobs) == 0 {
		return job{}, false
	}
	j := o.jobs[0]
	o.jobs = slices.Delete(o.jobs, 0, 1)
	return j, true
}

// announce sends an entry, unless it cannot be sent or has been.
func (o *sending) announce(it item) error {
	if o.known(it) {
		return nil
	}
	if it.skip != nil {
		o.finish(it, Event{Kind: Skipped, Err: it.skip})
		return nil //nolint:nilerr // it is told
	}
	e := o.number(it)
	if e == nil {
		o.finish(it, Event{Kind: Failed, Err: errChanged})
		return nil
	}
	return o.w.queue(kindEntry, it.entry(e.index).elems()...)
}

// number makes an item an entry under way; nil if there are more than offered.
func (o *sending) number(it item) *outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.announced >= o.offer.entries || o.announcedBytes+uint64(it.size) > o.offer.bytes {
		return nil
	}
	e := &outgoing{item: it, index: o.announced}
	o.announced++
	o.announcedBytes += uint64(it.size)
	o.open[e.index] = e
	return e
}

// known reports whether an item has an outcome from an earlier channel.
func (o *sending) known(it item) bool {
	if o.first {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.done[pathKey(it)]
	return known
}

// finish notes and tells an entry's outcome.
func (o *sending) finish(it item, e Event) {
	o.mu.Lock()
	o.remember(it)
	o.mu.Unlock()
	e.Path, e.Folder, e.Size = it.name(), it.folder, it.size
	o.tally.event(e)
}

// fail ends an entry that cannot be sent, on both sides.
func (o *sending) fail(e *outgoing, why error) error {
	if err := o.w.send(kindBroken, e.index, escape.Cap(reason(why), maxReason)); err != nil {
		return err
	}
	if o.forget(e) {
		o.finish(e.item, Event{Kind: Failed, At: e.at, Err: why})
	}
	return nil
}

// forget takes an entry out of those under way; false if it was already.
func (o *sending) forget(e *outgoing) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, there := o.open[e.index]
	delete(o.open, e.index)
	e.ended.Store(true)
	return there
}

// read takes the receiver's messages until the channel ends.
func (o *sending) read() error {
	for {
		k, n, err := o.w.next()
		if err != nil {
			return err
		}
		if err := o.handle(k, n); err != nil {
			return err
		}
		if k != kindAnswer && k != kindList {
			o.progress.Add(1)
		}
		pause.Tell(o.wake, struct{}{})
	}
}

func (o *sending) handle(k kind, n int) error {
	switch k {
	case kindAnswer:
		return o.onAnswer(n)
	case kindCompare:
		return o.onCompare(n)
	case kindWant:
		return o.onWant(n)
	case kindKept:
		return o.onKept(n)
	case kindFailed:
		return o.onFailed(n)
	case kindList:
		return o.onList(n)
	}
	return final{violation("a frame of kind %d from a receiver", k)}
}

func (o *sending) onAnswer(n int) error {
	f := o.w.fields(n, 2)
	yes, why := f.Bool(), f.String(maxReason)
	if err := f.done(); err != nil {
		return final{err}
	}
	if !yes {
		return final{fmt.Errorf("%w: %q", ErrRefused, why)}
	}
	o.mu.Lock()
	o.answered = true
	o.mu.Unlock()
	return nil
}

// onList has all entries told, once, before an answer.
func (o *sending) onList(n int) error {
	if err := o.w.fields(n, 0).done(); err != nil {
		return final{err}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answered || o.listed {
		return final{violation("the entries are asked for out of turn")}
	}
	o.listed = true
	return nil
}

func (o *sending) onCompare(n int) error {
	index, err := o.w.readIndex(n)
	if err != nil {
		return final{err}
	}
	return o.ask(index, job{compare: true})
}

func (o *sending) onWant(n int) error {
	m, err := o.w.readWant(n)
	if err != nil {
		return final{err}
	}
	return o.ask(m.index, job{want: m})
}

// ask queues a job. An entry that ended here meanwhile is asked for in vain.
func (o *sending) ask(index uint64, j job) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.open[index]
	if e == nil && index < o.announced {
		return nil
	}
	if e == nil || e.folder || e.asked >= 2 || j.want.offset > uint64(e.size) {
		return final{violation("entry %d is wanted, from %d", index, j.want.offset)}
	}
	e.asked++
	j.outgoing = e
	o.jobs = append(o.jobs, j)
	return nil
}

func (o *sending) onKept(n int) error {
	f := o.w.fields(n, 3)
	index, name, same := f.Uint(maxSize), f.String(maxMessage), f.Bool()
	if err := f.done(); err != nil {
		return final{err}
	}
	o.mu.Lock()
	e := o.open[index]
	early := e != nil && !e.sent && !e.folder
	o.mu.Unlock()
	switch {
	case e == nil:
		return final{violation("entry %d is not under way", index)}
	case early:
		return final{violation("entry %d is kept before it was sent", index)}
	}
	o.forget(e)
	ev := Event{Kind: Kept, Name: name, Sum: e.sum}
	if same {
		ev.Kind = Same
	}
	o.finish(e.item, ev)
	return nil
}

func (o *sending) onFailed(n int) error {
	index, why, err := o.w.readReason(n)
	if err != nil {
		return final{err}
	}
	o.mu.Lock()
	e := o.open[index]
	if e == nil && index >= o.announced {
		err = final{violation("entry %d has failed, which was not announced", index)}
	}
	o.mu.Unlock()
	if e == nil {
		return err
	}
	o.forget(e)
	o.finish(e.item, Event{Kind: Failed, Err: fmt.Errorf("the receiver: %q", why)})
	return nil
}

// reason is what the other side is told of an error: no paths of this one.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return "its disk: " + pe.Err.Error()
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return "its disk: " + le.Err.Error()
	}
	return err.Error()
}
