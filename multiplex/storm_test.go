package multiplex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// storm is the two ends of a link whose applications do all that they can at once.
type storm struct {
	t     *testing.T
	sides [2]*Socket
	honor bool // promises: nothing is reset for want of memory

	mu    sync.Mutex
	n     int
	asked []*Request
	flows map[string]*flow
	socks []*tip
}

// tip is one application's end of a channel.
type tip struct {
	*channel.Socket
	f    *flow
	side int // 0: the opener's
}

// flow counts the bytes of a channel, in each direction. storm.mu guards it.
type flow struct {
	sent, got [2]int
	clean     [2]bool // read up to a clean end
}

// judge looks at an error: an honest peer never exceeds its credit.
func (w *storm) judge(what string, err error) {
	reset, ok := errors.AsType[*channel.ResetError](err)
	if ok && (reset.Code == channel.CodeFlowControl || reset.Code == channel.CodeProtocol || w.honor && reset.Code == channel.CodeResource) {
		w.t.Errorf("%s: %v", what, err)
	}
}

func (w *storm) take(c *channel.Socket, side int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flows[c.URI()] == nil {
		w.flows[c.URI()] = new(flow)
	}
	c.TakeDatagram() // from now on they are apart
	w.socks = append(w.socks, &tip{c, w.flows[c.URI()], side})
}

func (w *storm) open(r *rand.Rand) {
	w.mu.Lock()
	w.n++
	name := fmt.Sprint(w.n)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Millisecond)
	defer cancel()
	open := w.sides[r.IntN(2)].OpenEarly
	if r.IntN(3) == 0 {
		open = w.sides[r.IntN(2)].Open
	}
	c, err := open(ctx, name)
	if w.judge("open", err); err == nil {
		w.take(c, 0)
	}
}

// serve collects requests, which are decided some time.
func (w *storm) serve(s *Socket) {
	for {
		r, err := s.Accept(context.Background())
		if err != nil {
			return
		}
		w.mu.Lock()
		w.asked = append(w.asked, r)
		w.mu.Unlock()
	}
}

func (w *storm) decide(r *rand.Rand, decline bool) bool {
	w.mu.Lock()
	if len(w.asked) == 0 {
		w.mu.Unlock()
		return false
	}
	i := r.IntN(len(w.asked))
	q := w.asked[i]
	w.asked[i] = w.asked[len(w.asked)-1]
	w.asked = w.asked[:len(w.asked)-1]
	w.mu.Unlock()
	if decline {
		_ = q.Decline("no")
	} else if c, err := q.Accept(); err == nil {
		w.take(c, 1)
	}
	return true
}

func (w *storm) count(t *tip, way, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if way == 0 {
		t.f.sent[t.side] += n
	} else {
		t.f.got[1-t.side] += n
	}
}

func size(r *rand.Rand) int { return r.IntN([]int{10, 2000, 30_000, 200_000}[r.IntN(4)]) }

func (w *storm) act(r *rand.Rand) {
	w.mu.Lock()
	if len(w.socks) == 0 {
		w.mu.Unlock()
		return
	}
	t := w.socks[r.IntN(len(w.socks))]
	w.mu.Unlock()
	soon := time.Now().Add(time.Duration(r.IntN(40)) * time.Millisecond)
	switch k := r.IntN(40); {
	case k < 10:
		_ = t.SetWriteDeadline(soon)
		w.write(t, fill(size(r)))
	case k < 16:
		w.try(t, fill(size(r)))
	case k < 20:
		_ = t.SetWriteDeadline(soon)
		w.judge("wait", t.WaitSend(size(r)))
	case k < 33:
		_ = t.SetReadDeadline(soon)
		_, _ = w.read(t, fill(1+size(r)))
	case k < 35:
		_ = t.SendDatagram(fill(r.IntN(1000)))
	case k < 36:
		_ = t.TakeDatagram()
	case k < 37:
		_ = t.CloseWrite()
	case k < 38:
		_ = t.Close()
	case k < 39:
		_ = t.Reset(300)
	}
}

func (w *storm) write(t *tip, p []byte) {
	n, err := t.Write(p)
	w.count(t, 0, n)
	w.judge("write", err)
}

func (w *storm) try(t *tip, p []byte) {
	err := t.TrySend(p)
	if w.judge("send", err); err == nil {
		w.count(t, 0, len(p))
	}
}

func (w *storm) read(t *tip, p []byte) (int, error) {
	n, err := t.Read(p)
	w.count(t, 1, n)
	w.judge("read", err)
	if err == io.EOF {
		w.mu.Lock()
		t.f.clean[1-t.side] = true
		w.mu.Unlock()
	}
	return n, err
}

// calm has each channel that is left send a message and more, and all be read.
func (w *storm) calm(r *rand.Rand) {
	var all sync.WaitGroup
	for _, t := range w.socks {
		_ = t.SetDeadline(time.Time{})
		n, m := 1+r.IntN(64<<10), size(r)
		if w.sides[0].cfg.MaxBuffered < 1<<20 {
			n = 1 + n/6
		}
		if !w.honor {
			n /= 2 // such a peer is not told what is needed, and grants when half of a window is read
		}
		all.Go(func() {
			if t.WaitSend(n) == nil {
				w.try(t, fill(n))
			}
			w.write(t, fill(m))
			_ = t.CloseWrite()
		})
		all.Go(func() {
			for p := fill(10_000); ; t.TakeDatagram() {
				if _, err := w.read(t, p); err != nil {
					return
				}
			}
		})
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(time.Hour):
		w.t.Error("some wait for ever")
	}
	for _, t := range w.socks {
		_ = t.Close()
	}
	<-over
}

// check looks, at any time, at what is promised.
func (w *storm) check() {
	for i, s := range w.sides {
		s.mu.Lock()
		sum, early, lent := 0, 0, 0
		for _, e := range s.table {
			if sum += int(e.promise); e.debt < 0 || e.promise < 0 {
				w.t.Errorf("side %d, channel %d: promise %d, debt %d", i, e.id, e.promise, e.debt)
			}
			if s.ours(e.id) {
				lent += int(e.debt)
			} else {
				early += int(e.debt)
			}
		}
		if !s.plain.Load() && (s.promised < sum || s.promised+s.loose > s.bound() || s.early != early || s.lent != lent || early > earlyCredit || lent > earlyCredit) {
			w.t.Errorf("side %d: %d promised of %d, %d to channels that live; %d loose, %d of %d early, %d of %d lent",
				i, s.promised, s.bound(), sum, s.loose, early, s.early, lent, s.lent)
		}
		if s.cause != nil {
			w.t.Errorf("side %d: the link ended: %v", i, s.cause)
		}
		s.mu.Unlock()
	}
}

func (w *storm) nothingLeft(budget *Budget) {
	for i, s := range w.sides {
		s.mu.Lock()
		if s.promised != 0 || s.early != 0 || s.lent != 0 || s.loose != 0 || s.pending != 0 || len(s.table) != 0 || len(s.asking) != 0 || s.buffered.Load() != 0 {
			w.t.Errorf("side %d: %d promised, %d early, %d lent, %d loose, %d pending, %d channels, %d asking, %d buffered",
				i, s.promised, s.early, s.lent, s.loose, s.pending, len(s.table), len(s.asking), s.buffered.Load())
		}
		s.mu.Unlock()
	}
	if b := budget; b != nil && (b.unread.Load() != 0 || b.held.Load() != 0 || b.extra.Load() != 0) {
		w.t.Errorf("of the budget %d unread, %d held, %d extra", b.unread.Load(), b.held.Load(), b.extra.Load())
	}
	for name, f := range w.flows {
		for d := range 2 {
			if f.clean[d] && f.got[d] != f.sent[d] {
				w.t.Errorf("channel %s, way %d: %d of %d bytes before a clean end", name, d, f.got[d], f.sent[d])
			}
		}
	}
}

func (w *storm) run(seed uint64, cut bool, budget *Budget) {
	for _, s := range w.sides {
		go w.serve(s)
	}
	var workers sync.WaitGroup
	for k := range 6 {
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		workers.Go(func() {
			for range 150 {
				switch d := r.IntN(20); {
				case d < 2:
					w.open(r)
				case d < 4:
					w.decide(r, r.IntN(4) == 0)
				case d < 5:
					time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
				default:
					w.act(r)
				}
				if !cut {
					w.check()
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 99))
	if cut {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		_ = w.sides[r.IntN(2)].Close()
	}
	workers.Wait()
	for time.Sleep(5 * time.Second); w.decide(r, false); { // all requests have come
	}
	w.calm(r)
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if !cut {
		w.check()
	}
	for w.decide(r, true) {
	}
	if !cut {
		w.nothingLeft(budget)
		return
	}
	if b := budget; b != nil && (b.unread.Load() != 0 || b.held.Load() != 0 || b.extra.Load() != 0) {
		w.t.Errorf("of the budget %d unread, %d held, %d extra", b.unread.Load(), b.held.Load(), b.extra.Load())
	}
}

// Whatever programs do on many channels at once: no more is promised than there
// is, nobody waits for ever, no clean end hides lost bytes, and in the end nothing
// is promised, owed or held.
func TestAllIsPaidBackAfterAStorm(t *testing.T) {
	little := Config{MaxBuffered: 128 << 10, Window: 64 << 10, MaxChannels: 200}
	packets := func(a, b *memConn) (net.Conn, net.Conn) {
		x, y := make(chan []byte, 256), make(chan []byte, 256)
		return &packetConn{a, x, y, 1000}, &packetConn{b, y, x, 1000}
	}
	slow := func() (net.Conn, net.Conn) { return packets(memPipe(8<<10, 1e7, 5*time.Millisecond)) }
	quick := func() (net.Conn, net.Conn) {
		a, b := memPipe(20_000, 0, 0)
		return eagerMemConn{a}, eagerMemConn{b}
	}
	budgeted := func(c Config) Config { c.Budget = NewBudget(1 << 20); return c }
	for name, c := range map[string]struct {
		cfgs  [2]Config
		conns func() (net.Conn, net.Conn)
		cut   bool
	}{
		"little memory":           {cfgs: [2]Config{little, little}, conns: quick},
		"little memory, slow":     {cfgs: [2]Config{little, little}, conns: slow},
		"much memory":             {conns: slow},
		"a budget":                {cfgs: [2]Config{{}, budgeted(Config{})}, conns: slow},
		"without promises":        {cfgs: [2]Config{{plain: true}, budgeted(Config{})}, conns: slow},
		"a peer without promises": {cfgs: [2]Config{little, {plain: true}}, conns: quick},
		"a link that ends":        {cfgs: [2]Config{{}, budgeted(little)}, conns: slow, cut: true},
		"a plain link that ends":  {cfgs: [2]Config{{plain: true}, budgeted(Config{})}, conns: slow, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				synctest.Test(t, func(t *testing.T) {
					a, b := c.conns()
					w := &storm{t: t, sides: [2]*Socket{Client(a, c.cfgs[0]), Server(b, c.cfgs[1])}, flows: make(map[string]*flow)}
					w.honor = !c.cfgs[0].plain && !c.cfgs[1].plain
					w.run(seed, c.cut, c.cfgs[1].Budget)
					_, _ = w.sides[0].Close(), w.sides[1].Close()
				})
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}
