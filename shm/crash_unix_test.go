//go:build linux || darwin

package shm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/ring"
)

// The steps at which another process is killed. It is a caller or a callee; both
// connect to the test's socket, as who connects makes no difference from there.
var (
	callerSteps = []string{"connected", "asked", "half asked", "received", "up", "half written", "writing", "reading", "sleeping writer"}
	calleeSteps = []string{"connected", "made", "sent", "up", "half written", "writing", "reading", "sleeping writer"}
)

const upBytes = 1000 // what a helper has written when it is up

// runHelper is another process.
func runHelper(role string) error {
	conn, err := net.Dial("unix", os.Getenv(pathEnv))
	if err != nil {
		return err
	}
	raw := conn.(*net.UnixConn)
	cfg, err := Config{RegionSize: 256 << 10}.withDefaults()
	if err != nil {
		return err
	}
	if role == "unix sink" {
		return sink(raw)
	}
	if role == "unix echo" {
		return echo(raw)
	}
	side, step, _ := strings.Cut(role, " ")
	switch side {
	case "caller":
		err = callUntil(cfg, raw, step)
	case "callee":
		err = answerUntil(cfg, raw, step)
	case "flood":
		err = withConn(cfg, raw, func(c *Conn) error { return flood(c, 1) })
	case "shm":
		if cfg, err = (Config{}).withDefaults(); err != nil {
			return err
		}
		err = withConn(cfg, raw, map[string]func(io.ReadWriteCloser) error{"sink": sink, "echo": echo}[step])
	case "poor":
		err = offerWithoutRoom(cfg, raw)
	default:
		err = errHelper
	}
	return err
}

func withConn[C io.ReadWriteCloser](cfg Config, raw *net.UnixConn, do func(C) error) error {
	c, err := cfg.offer(context.Background(), raw, identity.Peer{})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(any(c).(C))
}

// callUntil goes through a caller's steps and stands at one of them.
func callUntil(cfg Config, raw *net.UnixConn, step string) error {
	switch step {
	case "connected":
		return stand("there")
	case "asked", "half asked":
		b := head{size: cfg.RegionSize}.encode()
		if step == "half asked" {
			b = b[:5]
		}
		if _, err := raw.Write(b); err != nil {
			return err
		}
		return stand("there")
	case "received":
		if _, err := raw.Write(head{size: cfg.RegionSize}.encode()); err != nil {
			return err
		}
		_, fds, err := receiveRegion(raw)
		if err != nil {
			return err
		}
		defer closeAll(fds)
		return stand("there")
	}
	c, err := cfg.ask(context.Background(), raw, identity.Peer{})
	if err != nil {
		return err
	}
	return useUntil(c, step, ring.Second)
}

// answerUntil goes through a callee's steps and stands at one of them.
func answerUntil(cfg Config, raw *net.UnixConn, step string) error {
	switch step {
	case "connected":
		return stand("there")
	case "made":
		h, err := readRequest(raw)
		if err != nil {
			return err
		}
		f, err := newRegion(h.size)
		if err != nil {
			return err
		}
		defer f.Close()
		return stand("there")
	case "sent":
		h, err := readRequest(raw)
		if err != nil {
			return err
		}
		if _, _, err := cfg.hand(raw, h.size); err != nil {
			return err
		}
		return stand("there")
	}
	c, err := cfg.offer(context.Background(), raw, identity.Peer{})
	if err != nil {
		return err
	}
	return useUntil(c, step, ring.First)
}

// useUntil goes through the steps of a transfer. Each begins with upBytes.
func useUntil(c *Conn, step string, side ring.Side) error {
	if _, err := c.Write(make([]byte, upBytes)); err != nil {
		return err
	}
	switch step {
	case "up":
	case "half written":
		size := c.writer.Cap()
		begin := ring.ControlSize + int(side)*size
		for i := begin + upBytes; i < begin+size; i++ { // bytes that are never published
			c.seg.mem[i] = 0xff
		}
	case "writing":
		go func() {
			for p := make([]byte, 3333); ; {
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		}()
	case "reading":
		go io.Copy(io.Discard, c)
	case "sleeping writer":
		c.WriteNow(make([]byte, 1<<20))
		go c.Write(make([]byte, 1<<20))
		for c.sleeps.Load() == 0 {
			runtime.Gosched()
		}
	default:
		return errHelper
	}
	return stand("there")
}

// Wherever the other process dies, whoever waits for it is told within a
// second; nothing that it had not written whole is read, what it had is; and no
// memory and no descriptor is left.
//
// fault: G1
func TestKilledPeerIsNoticed(t *testing.T) {
	for _, side := range []string{"caller", "callee"} {
		steps := callerSteps
		if side == "callee" {
			steps = calleeSteps
		}
		for _, step := range steps {
			t.Run(side+" "+step, func(t *testing.T) {
				loc := newLocal(t)
				regions, files := mappings()
				h := startHelper(t, side+" "+step, loc.path)
				early, c := setUp(t, loc, side, h)
				h.kill()
				killed := time.Now()
				if c == nil {
					c = <-early
				}
				if c != nil {
					checkEnd(t, c, step)
				}
				if d := time.Since(killed); d > time.Second {
					t.Errorf("it took %s to notice", d)
				}
				if c != nil {
					c.Close()
				}
				h.in.Close()
				if r, f := mappings(); r != regions || f > files {
					t.Errorf("%d regions and %d descriptors, %d and %d before", r, f, regions, files)
				}
			})
		}
	}
}

// setUp plays the other side of a helper's set-up until the helper stands.
func setUp(t *testing.T, loc *local, side string, h *helper) (<-chan *Conn, *Conn) {
	raw, peer, err := loc.AcceptUnix(t.Context(), Service)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Config{RegionSize: 256 << 10}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	do := cfg.offer
	if side == "callee" {
		do = cfg.ask
	}
	upc := make(chan *Conn, 1)
	go func() {
		c, err := do(context.Background(), raw, peer)
		if err == nil {
			upc <- c
			return
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the set-up ended with %v", err)
		}
		upc <- nil
	}()
	h.expect(t, "there")
	select {
	case c := <-upc:
		return nil, c
	default:
		return upc, nil
	}
}

// checkEnd reads and writes until both tell the death of the peer.
func checkEnd(t *testing.T, c *Conn, step string) {
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		for p := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(p)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("writing ended with %v, want io.ErrUnexpectedEOF", err)
		}
	})
	b, err := io.ReadAll(c)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading ended with %v, want io.ErrUnexpectedEOF", err)
	}
	wg.Wait()
	switch step {
	case "received", "sent": // it was never up on the other side
	case "writing", "sleeping writer":
		if len(b) < upBytes {
			t.Errorf("%d bytes came", len(b))
		}
	default:
		if len(b) != upBytes {
			t.Errorf("%d bytes came, want %d", len(b), upBytes)
		}
	}
	if strings.Trim(string(b), "\x00") != "" {
		t.Error("bytes came that were never written")
	}
}

// fault: G1
func TestCrashCyclesLeaveNothing(t *testing.T) {
	cycles := 1000
	if testing.Short() {
		cycles = 50
	}
	loc := newLocal(t)
	cfg, err := Config{RegionSize: 256 << 10}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	regions, files := mappings()
	roles := []string{"caller up", "caller half written", "caller sleeping writer", "callee writing", "callee reading"}
	for i := range cycles {
		role := roles[i%len(roles)]
		h := startCycle(t, role, loc.path)
		raw, peer, err := loc.AcceptUnix(t.Context(), Service)
		if err != nil {
			t.Fatal(err)
		}
		do := cfg.offer
		if strings.HasPrefix(role, "callee") {
			do = cfg.ask
		}
		c, err := do(t.Context(), raw, peer)
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		h.expect(t, "there")
		h.kill()
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cycle %d: %v", i, err)
		}
		c.Close()
		h.in.Close()
		if r, f := mappings(); r != regions || f > files {
			t.Fatalf("cycle %d: %d regions and %d descriptors, %d and %d before", i, r, f, regions, files)
		}
	}
}

// startCycle is startHelper without a Cleanup for each of many.
func startCycle(t *testing.T, role, path string) *helper {
	var h *helper
	t.Run("start", func(sub *testing.T) { h = startHelper(keepAlive{sub}, role, path) })
	if h == nil {
		t.FailNow()
	}
	return h
}

// keepAlive leaves the ending of what was started to somebody else.
type keepAlive struct{ testing.TB }

func (keepAlive) Cleanup(func()) {}

// flood sends messages of 64 bytes as fast as they go, in bursts, each
// answered by the other side, which does the same: between the bursts both
// fall asleep, which is where a wake-up could be lost.
func flood(c *Conn, seed uint64) error {
	const total = 1 << 20
	errc := make(chan error, 1)
	turns := make(chan struct{}, 64)
	go func() { errc <- readFlood(c, turns, total) }()
	rnd := rand.New(rand.NewPCG(seed, 9))
	var m [64]byte
	for i := 0; i < total; {
		burst := min(1<<rnd.IntN(15), total-i)
		for range burst {
			binary.BigEndian.PutUint64(m[rnd.IntN(2)*8:], uint64(i))
			binary.BigEndian.PutUint64(m[:], uint64(i))
			if _, err := c.Write(m[:]); err != nil {
				return err
			}
			i++
		}
		select {
		case <-turns: // the other side sends, too
		case <-time.After(time.Microsecond << rnd.IntN(8)):
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	return <-errc
}

func readFlood(c *Conn, turns chan<- struct{}, total int) error {
	var m [64]byte
	for i := range total {
		if _, err := io.ReadFull(c, m[:]); err != nil {
			return fmt.Errorf("after %d messages: %w", i, err)
		}
		if got := binary.BigEndian.Uint64(m[:]); got != uint64(i) {
			return fmt.Errorf("message %d says %d", i, got)
		}
		if i%100 == 0 {
			select {
			case turns <- struct{}{}:
			default:
			}
		}
	}
	if _, err := c.Read(m[:]); err != io.EOF {
		return fmt.Errorf("after the last message: %w", err)
	}
	return nil
}

// Two processes, a million messages of 64 bytes each way. A lost wake-up would
// leave both asleep.
func TestFloodBetweenTwoProcesses(t *testing.T) {
	loc := newLocal(t)
	startHelper(t, "flood", loc.path)
	raw, peer, err := loc.AcceptUnix(t.Context(), Service)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Config{RegionSize: 256 << 10}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c, err := cfg.ask(t.Context(), raw, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	if err := flood(c, 2); err != nil {
		t.Fatal(err)
	}
}

// sink reads to the end and says so.
func sink(c io.ReadWriteCloser) error {
	for p := make([]byte, 256<<10); ; {
		if _, err := c.Read(p); err != nil {
			_, err := c.Write(p[:1])
			return err
		}
	}
}

// echo sends back what comes.
func echo(c io.ReadWriteCloser) error {
	for p := make([]byte, 64); ; {
		if _, err := io.ReadFull(c, p); err != nil {
			return err
		}
		if _, err := c.Write(p); err != nil {
			return err
		}
	}
}
