package parcel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
)

// hand is a sender made by hand.
type hand struct {
	t *testing.T
	w *wire
	r *receiver
}

func byHand(t *testing.T, cfg Config) *hand {
	t.Helper()
	r := newReceiver(t, cfg)
	c, _ := r.open(t.Context(), Scheme)
	t.Cleanup(func() { c.Close() })
	return &hand{t, newWire(c), r}
}

func (h *hand) send(k kind, elems ...any) {
	h.t.Helper()
	if err := h.w.send(k, elems...); err != nil {
		h.t.Fatalf("send %d: %v", k, err)
	}
}

func (h *hand) offered(entries, size uint64) *hand {
	h.t.Helper()
	h.send(kindOffer, offer{id: [16]byte{1}, entries: entries, bytes: size, names: []string{"x"}}.elems()...)
	h.expect(kindAnswer)
	return h
}

func (h *hand) expect(want kind) []byte {
	h.t.Helper()
	k, n, err := h.w.next()
	body := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(h.w.br, body)
	}
	if err != nil || k != want {
		h.t.Fatalf("got %d %q, %v, want %d", k, body, err, want)
	}
	return body
}

func (h *hand) piece(content []byte, sum digest.Sum) {
	h.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, uint32(len(content)+len(sum)))
	b = append(append(append(b, byte(kindPiece)), content...), sum[:]...)
	if err := h.w.sendFrame(b); err != nil {
		h.t.Fatalf("send a piece: %v", err)
	}
}

// refused checks that the session ends with a violation, and leaves nothing.
func (h *hand) refused(want string) {
	h.t.Helper()
	go func() { _, _ = io.Copy(io.Discard, h.w.conn) }()
	h.r.wg.Wait()
	if err := h.r.errs[0]; !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), want) {
		h.t.Errorf("it ended with %v, want %q", err, want)
	}
	holds(h.t, h.r.dir, nil)
}

func sumOf(b []byte) digest.Sum {
	var d digest.Digest
	_, _ = d.Write(b)
	return d.Sum()
}

func file(index uint64, size uint64, path ...string) []any {
	return entry{index: index, path: path, size: size}.elems()
}

// fault: A1, A2, H3
func TestSendersThatBreakTheRulesAreCutOff(t *testing.T) {
	five := []byte("hello")
	for what, f := range map[string]func(h *hand){
		"a frame of kind 3 before": func(h *hand) { h.send(kindEntry, file(0, 5, "x")...) },
		"a frame of kind 99":       func(h *hand) { h.offered(1, 5).send(99) },
		"a frame of kind 1 from a": func(h *hand) { h.offered(1, 5).send(kindOffer, offer{}.elems()...) },
		"a message of 4294967295": func(h *hand) {
			_, _ = h.w.conn.Write([]byte{255, 255, 255, 255, byte(kindEntry)})
		},
		"a piece of 4294967295": func(h *hand) { _, _ = h.w.conn.Write([]byte{255, 255, 255, 255, byte(kindPiece)}) },
		"the end before 1 ent": func(h *hand) { // whether its entry is wanted by then or not
			w := h.offered(1, 5)
			w.send(kindEntry, file(0, 5, "x")...)
			w.send(kindEnd)
		},
		"the end before 1 entries": func(h *hand) {
			w := h.offered(1, 5)
			w.send(kindEntry, file(0, 5, "x")...)
			w.expect(kindWant)
			w.send(kindEnd)
		},
		"beyond what was offered": func(h *hand) { h.offered(1, 5).send(kindEntry, file(0, 6, "x")...) },
		"entry 1 of 5 bytes":      func(h *hand) { h.offered(2, 10).send(kindEntry, file(1, 5, "x")...) },
		"entry 0 of 5 bytes, beyond": func(h *hand) {
			h.offered(1, 5).send(kindEntry, entry{path: []string{"x"}, folder: true, size: 5}.elems()...)
		},
		"malformed msgpack": func(h *hand) { h.offered(1, 5).send(kindEntry, uint64(0), "x", false, uint64(5), uint64(0), false) },
		"out of turn":       func(h *hand) { h.offered(1, 5).send(kindStart, uint64(0), uint64(0)) },
		"entry 0 starts at": func(h *hand) {
			h.offered(1, 5).send(kindEntry, file(0, 5, "x")...)
			h.expect(kindWant)
			h.send(kindStart, uint64(0), uint64(3))
		},
		"a piece of 1 bytes out of turn": func(h *hand) {
			h.offered(1, 5).send(kindEntry, file(0, 5, "x")...)
			h.expect(kindWant)
			h.send(kindStart, uint64(0), uint64(0))
			h.piece(five[:1], sumOf(five[:1]))
		},
		"a piece of 6 bytes out of turn": func(h *hand) {
			h.offered(1, 5).send(kindEntry, file(0, 5, "x")...)
			h.expect(kindWant)
			h.send(kindStart, uint64(0), uint64(0))
			h.piece(append(five, '!'), sumOf(five))
		},
		"a piece of 5 bytes out of turn": func(h *hand) { h.offered(1, 5).piece(five, sumOf(five)) },
		"the end in the middle": func(h *hand) {
			h.offered(1, 5).send(kindEntry, file(0, 5, "x")...)
			h.expect(kindWant)
			h.send(kindStart, uint64(0), uint64(0))
			h.send(kindEnd)
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := byHand(t, Config{})
			f(h)
			h.refused(what)
		})
	}
}

// fault: H3
func TestWrongContentIsNotKept(t *testing.T) {
	h := byHand(t, Config{}).offered(1, 5)
	h.send(kindEntry, file(0, 5, "x")...)
	h.expect(kindWant)
	h.send(kindStart, uint64(0), uint64(0))
	h.piece([]byte("hello"), sumOf([]byte("olleh")))
	if why := h.expect(kindFailed); !bytes.Contains(why, []byte("does not match its BLAKE3")) {
		t.Errorf("the sender is told %q", why)
	}
	h.send(kindEnd)
	h.r.wg.Wait()
	holds(t, h.r.dir, nil)
}

// fault: H3
func TestMoreThanHasRoomIsRefusedBeforeAByte(t *testing.T) {
	h := byHand(t, Config{MaxBytes: 1 << 62})
	h.send(kindOffer, offer{id: [16]byte{1}, entries: 1, bytes: 1 << 61, names: []string{"x"}}.elems()...) // no disk has that
	if why := h.expect(kindAnswer); !bytes.Contains(why, []byte("not enough disk space")) {
		t.Errorf("the sender is told %q", why)
	}
	h.r.wg.Wait() // the receiver hangs up by itself
	if err := h.r.errs[0]; !errors.Is(err, inbox.ErrNoSpace) || !errors.Is(err, ErrRefused) {
		t.Errorf("it ended with %v", err)
	}
}

// fault: H1
func TestHostileNamesFailAlone(t *testing.T) {
	names := [][]string{{".."}, {"..", "x"}, {"/etc/passwd"}, {"a/../../x"}, {"nul\x00"}, {".peerlink-part-0"}, {strings.Repeat("x", 300)}, {"", "x"}}
	h := byHand(t, Config{}).offered(uint64(len(names))+2, 100)
	for i, n := range names {
		h.send(kindEntry, file(uint64(i), 5, n...)...)
		if why := h.expect(kindFailed); !bytes.Contains(why, []byte("not a name")) {
			t.Errorf("%q: %q", n, why)
		}
	}
	last := uint64(len(names))
	for i, n := range []string{"e\u0301 \x1b[2J:CON", "é \x1b[2J:CON"} { // the same, once escaped
		h.send(kindEntry, file(last+uint64(i), 5, n)...)
		if i == 1 {
			h.expect(kindCompare)
			sum := sumOf([]byte("olleh"))
			h.send(kindDigest, last+1, sum[:])
		}
		h.expect(kindWant)
		h.send(kindStart, last+uint64(i), uint64(0))
		content := []byte([]string{"hello", "olleh"}[i])
		h.piece(content, sumOf(content))
		h.expect(kindKept)
	}
	h.send(kindEnd)
	h.r.wg.Wait()
	holds(t, h.r.dir, map[string][]byte{"é %1B[2J%3ACON": []byte("hello"), "é %1B[2J%3ACON (1)": []byte("olleh")})
}

// fault: B9, J1
func TestNoMoreThanAWindowIsUnderWay(t *testing.T) {
	h := byHand(t, Config{}).offered(1000, 5000)
	go func() { _, _ = io.Copy(io.Discard, h.w.conn) }()
	var err error
	for i := uint64(0); i < 1000 && err == nil; i++ {
		err = h.w.send(kindEntry, file(i, 5, "x", strings.Repeat("y", int(i%200)+1))...)
	}
	h.r.wg.Wait()
	if err := h.r.errs[0]; !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "under way") {
		t.Errorf("it ended with %v", err)
	}
}

// A receiver that breaks the rules does not have the sender go on, or send what
// is not its own.
func TestReceiversThatBreakTheRulesAreLeft(t *testing.T) {
	dir := files(t, map[string][]byte{"x": []byte("hello")})
	for what, frames := range map[string][][]any{
		"entry 7":                      {{kindWant, uint64(7), uint64(0), []byte{}}},
		"entry 0 is wanted, from 6":    {{kindWant, uint64(0), uint64(6), make([]byte, 32)}},
		"kept before it was sent":      {{kindKept, uint64(0), "x", false}},
		"a frame of kind 3":            {{kindEntry}},
		"offset 3 and a sum: false":    {{kindWant, uint64(0), uint64(3), []byte{}}},
		"entry 9 has failed":           {{kindFailed, uint64(9), "no"}},
		"entry 0 is wanted, from 0":    {{kindCompare, uint64(0)}, {kindCompare, uint64(0)}, {kindWant, uint64(0), uint64(0), []byte{}}},
		"too few elements":             {{kindKept, uint64(0)}},
		"string of 256 bytes, at most": {{kindFailed, uint64(0), strings.Repeat("x", 256)}},
	} {
		open := func(context.Context, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				w := newWire(b)
				_, n, _ := w.next()
				_ = w.fields(n, 9).done()
				_ = w.send(kindAnswer, true, "")
				_, n, _ = w.next()
				_ = w.fields(n, 9).done()
				go func() { _, _ = io.Copy(io.Discard, b) }()
				for _, f := range frames {
					_ = w.send(f[0].(kind), f[1:]...)
				}
			}()
			return a, nil
		}
		_, err := Send(t.Context(), SendConfig{Open: open}, filepath.Join(dir, "x"))
		if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A side that says nothing is left after a minute, and one that has nothing to
// say keeps the channel up.
func TestSilenceEndsATransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := byHand(t, Config{})
		go func() { _, _ = io.Copy(io.Discard, h.w.conn) }()
		began := time.Now()
		h.r.wg.Wait()
		if err := h.r.errs[0]; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < silence {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dir := files(t, map[string][]byte{"x": []byte("hello")})
		r := newReceiver(t, Config{Consent: func(ctx context.Context, _ Offer) error {
			select {
			case <-time.After(10 * time.Minute): // a user who is at lunch
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}})
		if _, err := send(t, r, filepath.Join(dir, "x")); err != nil {
			t.Error(err)
		}
		r.stop()
	})
}

// fault: H3
// Very many entries take no more memory than the window. Their names are
// refused, so that no disk is in the way.
func TestManyEntriesTakeLittleMemory(t *testing.T) {
	const n = 10_000
	r := newReceiver(t, Config{})
	var most uint64
	seen := 0
	s := &sender{cfg: SendConfig{Open: r.open, Patience: -1}, done: map[[16]byte]struct{}{}}
	s.offer = offer{id: [16]byte{1}, entries: n, names: []string{"x"}}
	s.source = func() iter.Seq[item] {
		return func(yield func(item) bool) {
			for range n {
				if seen++; seen%2_500 == 0 {
					var m runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
				}
				if !yield(item{path: []string{strings.Repeat("long ", 40), ".."}, modified: time.Unix(1, 0)}) {
					return
				}
			}
		}
	}
	if err := s.persist(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sum := s.tally.summary(); sum.Failed != n || len(sum.Errs) > 8 {
		t.Errorf("%d failed, %d errors", sum.Failed, len(sum.Errs))
	}
	if most > 16<<20 {
		t.Errorf("%d bytes are held", most)
	}
}

func FuzzReceiver(f *testing.F) {
	session := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	must := func(k kind, elems ...any) []byte {
		b, err := encode(k, elems)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	sum := sumOf([]byte("hello"))
	piece := append(binary.BigEndian.AppendUint32(nil, 5+digest.Size), byte(kindPiece))
	piece = append(append(piece, "hello"...), sum[:]...)
	o := must(kindOffer, offer{id: [16]byte{1}, entries: 3, bytes: 99, names: []string{"x"}}.elems()...)
	f.Add(session(o, must(kindEntry, file(0, 5, "x")...), must(kindStart, uint64(0), uint64(0)), piece, must(kindEnd)))
	f.Add(session(o, must(kindEntry, file(0, 5, "there")...), must(kindDigest, uint64(0), sum[:]), must(kindEnd)))
	f.Add(session(o, must(kindEntry, file(0, 5, "..", "x")...), must(kindBroken, uint64(0), "why"), must(kindNothing)))
	lists := must(kindOffer, offer{id: [16]byte{1}, entries: 3, bytes: 99, names: []string{"x"}, lists: true}.elems()...)
	listed := session(lists, must(kindEntry, file(0, 5, "x")...), must(kindEnd), must(kindEntry, file(0, 5, "y")...), must(kindEnd))
	f.Add(append(listed, make([]byte, 1-len(listed)%2)...)) // of an odd length, for a receiver that looks
	f.Fuzz(func(t *testing.T, b []byte) {
		outside := t.TempDir()
		dir := filepath.Join(outside, "in")
		folder, err := inbox.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer folder.Close()
		os.WriteFile(filepath.Join(dir, "there"), []byte("hello"), 0o600)
		cfg := Config{Folder: folder, MaxBytes: 1 << 20}
		if len(b)%2 == 1 {
			cfg.Consent = func(ctx context.Context, o Offer) error { _, err := o.Look(ctx); return err }
		}
		r := NewReceiver(cfg)
		c := &scripted{in: bytes.NewReader(b), pace: make(chan struct{}, 1)}
		_, _ = r.Serve(t.Context(), c, alice, nil)
		if got, _ := os.ReadFile(filepath.Join(dir, "there")); string(got) != "hello" {
			t.Fatal("a file was written over")
		}
		if es, _ := os.ReadDir(outside); len(es) != 1 {
			t.Fatalf("it wrote outside: %v", es)
		}
	})
}

// scripted is a channel whose other side says what is written down, each frame
// when an answer has come or a moment has passed.
type scripted struct {
	in   *bytes.Reader
	pace chan struct{}
	net.Conn
}

func (c *scripted) Read(p []byte) (int, error) {
	select {
	case <-c.pace:
	case <-time.After(200 * time.Microsecond):
	}
	return c.in.Read(p[:min(len(p), 64)])
}

func (c *scripted) Write(p []byte) (int, error) {
	select {
	case c.pace <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *scripted) Close() error                     { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }
