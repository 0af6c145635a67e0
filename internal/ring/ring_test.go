package ring

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory returns a region in the heap, where the race detector sees it.
func memory(size int) []byte {
	b := make([]byte, size+lineSize)
	off := -int(uintptr(unsafe.Pointer(&b[0]))) & (lineSize - 1)
	return b[off : off+size]
}

type end struct {
	Writer *Writer
	Reader *Reader
}

func ends(t testing.TB, size int) (region []byte, a, b end) {
	t.Helper()
	region = memory(size)
	for i, e := range []*end{&a, &b} {
		var err error
		if e.Writer, e.Reader, err = New(region, Side(i)); err != nil {
			t.Fatal(err)
		}
	}
	return region, a, b
}

func TestLayoutIsWhatTheOtherProcessExpects(t *testing.T) {
	if n := unsafe.Sizeof(control{}); n != ControlSize {
		t.Errorf("control block of %d bytes", n)
	}
	region, a, b := ends(t, MinSize)
	a.Writer.Write([]byte{1, 2, 3})
	b.Writer.Write([]byte{4, 5})
	b.Reader.Read(make([]byte, 9))
	b.Reader.Sleep()
	a.Writer.Close()
	order := func(off int) uint64 { return *(*uint64)(unsafe.Pointer(&region[off])) }
	word := func(off int) uint32 { return *(*uint32)(unsafe.Pointer(&region[off])) }
	if order(0) != 3 || order(64) != 0 || order(128) != 2 || order(192) != 3 {
		t.Errorf("positions %d %d %d %d", order(0), order(64), order(128), order(192))
	}
	if word(12) != 1 || word(200) != 0 { // Close has taken the sleeping flag to ring
		t.Errorf("closed %d, sleeping %d", word(12), word(200))
	}
	size := a.Writer.Cap()
	if size != b.Writer.Cap() || size%lineSize != 0 || ControlSize+2*size > MinSize || ControlSize+2*size < MinSize-2*lineSize {
		t.Errorf("rings of %d bytes", size)
	}
	if !bytes.Equal(region[ControlSize:ControlSize+3], []byte{1, 2, 3}) || !bytes.Equal(region[ControlSize+size:ControlSize+size+2], []byte{4, 5}) {
		t.Error("the bytes are elsewhere")
	}
}

func TestRegionsAreChecked(t *testing.T) {
	for _, region := range [][]byte{nil, memory(MinSize - 1), memory(MinSize + 8)[8:]} {
		if _, _, err := New(region, First); err == nil {
			t.Errorf("a region of %d bytes was taken", len(region))
		}
	}
}

// Whatever the sizes of the pieces, the bytes come out as they went in.
func TestBytesKeepTheirOrder(t *testing.T) {
	_, a, b := ends(t, MinSize+100)
	rnd := rand.New(rand.NewPCG(1, 2))
	var in, out byte
	buf := make([]byte, 1<<17)
	for range 20_000 {
		p := buf[:rnd.IntN(1<<rnd.IntN(17))]
		for i := range p {
			p[i] = in + byte(i)
		}
		n, _, err := a.Writer.Write(p)
		if err != nil {
			t.Fatal(err)
		}
		in += byte(n)
		p = p[n:]
		if k := rnd.IntN(len(p) + 1); a.Writer.Stage(p[:k], p[k:]) { // for the next Write
			in += byte(len(p))
		}
		p = buf[:rnd.IntN(1<<rnd.IntN(17))]
		n, _, err = b.Reader.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range p[:n] {
			if c != out {
				t.Fatalf("%d came, want %d", c, out)
			}
			out++
		}
	}
}

func TestFullAndEmpty(t *testing.T) {
	_, a, b := ends(t, MinSize)
	w, r := a.Writer, b.Reader
	if r.Ready() || !w.Ready(1<<30) {
		t.Error("an empty ring is readable, or not writable")
	}
	p := make([]byte, w.Cap()+1)
	if n, _, err := w.Write(p); n != w.Cap() || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if n, _, err := w.Write(p); n != 0 || err != nil || w.Ready(1) {
		t.Errorf("wrote %d, %v into a full ring", n, err)
	}
	if ok, err := fits(w, 1); ok || err != nil {
		t.Errorf("1 byte fits: %v, %v", ok, err)
	}
	w.Sleep()
	if n, wake, err := r.Read(p[:len(p)/4]); n != len(p)/4 || wake || err != nil || w.Ready(1<<30) {
		t.Errorf("a quarter read: %d, woke %v, %v", n, wake, err)
	}
	if !w.Ready(len(p) / 8) {
		t.Error("what fits is not ready")
	}
	if n, wake, err := r.Read(p[:len(p)/4+64]); n != len(p)/4+64 || !wake || err != nil || !w.Ready(1<<30) {
		t.Errorf("half read: %d, woke %v, %v", n, wake, err)
	}
	if _, wake, _ := r.Read(p); wake {
		t.Error("the writer was woken twice")
	}
	r.Sleep()
	if _, wake, _ := w.Write(p[:1]); !wake {
		t.Error("the reader was not woken")
	}
	r.Awake()
	if _, wake, _ := w.Write(p[:1]); wake {
		t.Error("a reader that does not sleep was woken")
	}
}

func TestStagedBytesComeWithTheNextWrite(t *testing.T) {
	_, a, b := ends(t, MinSize)
	w, r := a.Writer, b.Reader
	p, half := make([]byte, w.Cap()), w.Cap()/2
	r.Sleep()
	if !w.Stage([]byte("he"), []byte("llo")) || w.Stage(p[:half], p[:half]) || r.Ready() {
		t.Error("not staged, or more than fits, or seen already")
	}
	if n, _, err := r.Read(p); n != 0 || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if n, wake, err := w.Write(nil); n != 0 || !wake || err != nil {
		t.Errorf("wrote %d, woke %v, %v", n, wake, err)
	}
	if n, _, err := r.Read(p); string(p[:n]) != "hello" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	r.Sleep() // and tells
	if !w.Stage(p[:half], p[:half]) || w.Ready(1) {
		t.Error("a whole ring was not staged, or there is room beside it")
	}
	if n, _, err := w.Write(p); n != 0 || err != nil {
		t.Errorf("wrote %d, %v beside it", n, err)
	}
	if n, _, err := r.Read(p); n != len(p) || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	r.Close()
	if w.Stage(p[:1], nil) {
		t.Error("staged for a reader that reads no more")
	}
}

// fault: G3
func TestReaderCannotHaveReadWhatIsOnlyStaged(t *testing.T) {
	region, a, _ := ends(t, MinSize)
	a.Writer.Write(make([]byte, 100))
	a.Writer.Stage(make([]byte, 100), nil)
	(*control)(unsafe.Pointer(&region[0]))[3].pos.Store(101)
	if a.Writer.Stage(make([]byte, a.Writer.Cap()-200), make([]byte, 1)) {
		t.Error("staged")
	}
	if _, _, err := a.Writer.Write(nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}

// fits reports whether n bytes have room now.
func fits(w *Writer, n int) (bool, error) {
	free, err := w.room(n)
	return free >= n, err
}

// What has been read is told a sixteenth of the ring late at most, and before
// the reader sleeps: a full ring's writer never waits for less than that.
func TestReaderTellsLateButBeforeItSleeps(t *testing.T) {
	_, a, b := ends(t, MinSize)
	w, r := a.Writer, b.Reader
	p := make([]byte, w.Cap())
	w.Write(p)
	r.Read(p[:w.Cap()/16-64])
	if ok, err := fits(w, 1); ok || err != nil {
		t.Errorf("told at once: %v, %v", ok, err)
	}
	r.Read(p[:128])
	if ok, err := fits(w, w.Cap()/16+64); !ok || err != nil {
		t.Errorf("not told: %v, %v", ok, err)
	}
	for n := 1; n > 0; n, _, _ = r.Read(p[:64]) {
	}
	r.Sleep()
	if ok, err := fits(w, w.Cap()); !ok || err != nil {
		t.Errorf("not told before sleeping: %v, %v", ok, err)
	}
}

func TestEndComesAfterTheLastByte(t *testing.T) {
	_, a, b := ends(t, MinSize)
	a.Writer.Write([]byte("last"))
	b.Reader.Sleep()
	if !a.Writer.Close() {
		t.Error("the reader was not woken")
	}
	p := make([]byte, 9)
	if n, _, err := b.Reader.Read(p); string(p[:n]) != "last" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
	if _, _, err := b.Reader.Read(p); err != io.EOF || !b.Reader.Ready() {
		t.Errorf("%v, want io.EOF", err)
	}
	b.Writer.Sleep()
	if !a.Reader.Close() {
		t.Error("the writer was not woken")
	}
	if _, _, err := b.Writer.Write(p); err != ErrClosed || !b.Writer.Ready(1<<20) || !b.Writer.Closed() {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// fault: G3
func TestImpossiblePositionsAreCorruptForEver(t *testing.T) {
	for name, tt := range map[string]struct{ reader, writer uint64 }{
		"more than was written":   {101, 100},
		"back":                    {9, 100},
		"more than the ring has":  {10, 1 << 40},
		"all ones":                {1<<64 - 1, 1<<64 - 1},
		"one more than the ring":  {10, 10 + MinSize/2},
		"the writer's goes back":  {10, 99},
		"half of the number line": {1 << 63, 1 << 63},
	} {
		t.Run(name, func(t *testing.T) {
			region, a, b := ends(t, MinSize)
			ctl := (*control)(unsafe.Pointer(&region[0]))
			p := make([]byte, 100)
			a.Writer.Write(p)
			b.Reader.Read(p[:10])
			b.Reader.look()
			ctl[3].pos.Store(10)
			if _, err := fits(a.Writer, MinSize); err != nil { // believes in 10
				t.Fatal(err)
			}
			if tt.reader != 10 {
				ctl[3].pos.Store(tt.reader)
				for range 2 {
					if _, _, err := a.Writer.Write(make([]byte, MinSize)); !errors.Is(err, ErrCorrupt) || !a.Writer.Ready(1<<20) {
						t.Errorf("the writer: %v, want ErrCorrupt", err)
					}
					ctl[3].pos.Store(10)
				}
			}
			if tt.writer != 100 {
				b.Reader.Read(p)
				ctl[0].pos.Store(tt.writer)
				for range 2 {
					if _, _, err := b.Reader.Read(p); !errors.Is(err, ErrCorrupt) || !b.Reader.Ready() {
						t.Errorf("the reader: %v, want ErrCorrupt", err)
					}
					ctl[0].pos.Store(100)
				}
			}
		})
	}
}

// What a peer writes into this end's part of the control block has no effect.
//
// fault: G3
func TestOwnPositionIsNeverReadBack(t *testing.T) {
	region, a, b := ends(t, MinSize)
	ctl := (*control)(unsafe.Pointer(&region[0]))
	a.Writer.Write([]byte("abc"))
	p := make([]byte, 9)
	b.Reader.Read(p[:1])
	ctl[0].pos.Store(1 << 50)
	ctl[3].pos.Store(1 << 50)
	b.Reader.Read(p[:2]) // seen before the lie
	a.Writer.Write([]byte("d"))
	if n, _, err := b.Reader.Read(p); string(p[:n]) != "d" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
}

// sleeper parks an end as a process would: the bell may ring early or for
// nothing, and is lost when nobody sleeps.
type sleeper struct{ bell chan struct{} }

func (s sleeper) ring(wake bool) {
	if wake {
		select {
		case s.bell <- struct{}{}:
		default:
		}
	}
}

// Two goroutines, a small ring, pieces of all sizes: nothing is lost, no
// wake-up either, and the race detector, which sees this memory, is content.
func TestTwoEndsAtOnce(t *testing.T) {
	const total = 4 << 20
	_, a, b := ends(t, MinSize)
	toReader, toWriter := sleeper{make(chan struct{}, 1)}, sleeper{make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(3, 4))
		p := make([]byte, 64<<10)
		for sent := 0; sent < total; {
			n := min(rnd.IntN(1<<rnd.IntN(16))+1, total-sent)
			for i := range n {
				p[i] = byte((sent + i) * 7 >> 3)
			}
			for q := p[:n]; len(q) > 0; {
				n, wake, err := a.Writer.Write(q)
				if err != nil {
					t.Error(err)
					return
				}
				toReader.ring(wake)
				q = q[n:]
				for len(q) > 0 && !a.Writer.Ready(len(q)) {
					a.Writer.Sleep()
					if !a.Writer.Ready(len(q)) {
						<-toWriter.bell
					}
				}
			}
			sent += n
		}
		toReader.ring(a.Writer.Close())
	})
	rnd := rand.New(rand.NewPCG(5, 6))
	p := make([]byte, 64<<10)
	got := 0
	for {
		n, wake, err := b.Reader.Read(p[:rnd.IntN(1<<rnd.IntN(16))+1])
		if err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			break
		}
		toWriter.ring(wake)
		for i, c := range p[:n] {
			if c != byte((got+i)*7>>3) {
				t.Fatalf("byte %d is wrong", got+i)
			}
		}
		got += n
		for n == 0 && !b.Reader.Ready() {
			b.Reader.Sleep()
			if !b.Reader.Ready() {
				<-toReader.bell
			}
		}
	}
	wg.Wait()
	if got != total {
		t.Errorf("%d of %d bytes came", got, total)
	}
}

// FuzzHostilePeer runs an end whose peer scribbles on the region, between its
// calls as the input says and beside them without a plan. Whatever comes, no
// call may panic, touch memory outside of the region, or return more than it
// was given room for; an end that has seen a violation stays with it.
//
// fault: G3
func FuzzHostilePeer(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, uint64(1))
	f.Add(bytes.Repeat([]byte{2, 0x80, 3, 0xff}, 50), uint64(1<<63))
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		const guard = 4096
		whole := memory(guard + MinSize + guard)
		region := whole[guard : guard+MinSize]
		w, r, err := New(region, Side(seed&1))
		if err != nil {
			t.Fatal(err)
		}
		ctl := (*control)(unsafe.Pointer(&region[0]))
		stop := scribble(ctl, region, seed)
		defer stop()
		p := make([]byte, MinSize)
		var werr, rerr error
		for len(script) >= 2 && len(script) < 1<<12 {
			op, arg := script[0], script[1]
			script = script[2:]
			size := int(arg) << (op >> 4 & 7)
			switch op & 7 {
			case 0:
				n, _, err := w.Write(p[:size])
				werr = sticky(t, n, size, err, werr)
			case 1:
				if w.Stage(p[:size/3], p[size/3:size]) && werr != nil {
					t.Fatalf("staged after %v", werr)
				}
			case 2, 3:
				n, _, err := r.Read(p[:size])
				rerr = sticky(t, n, size, err, rerr)
			case 4:
				ctl[arg&3].pos.Store(seed >> (arg >> 2))
			case 5:
				ctl[arg&3].pos.Add(uint64(size))
			case 6:
				w.Ready(size)
				r.Ready()
				w.Sleep()
				r.Sleep()
			case 7:
				ctl[arg&3].closed.Store(uint32(arg >> 7))
			}
		}
		for _, b := range [][]byte{whole[:guard], whole[guard+MinSize:]} {
			if !bytes.Equal(b, make([]byte, guard)) {
				t.Fatal("memory outside of the region was written")
			}
		}
	})
}

func sticky(t *testing.T, n, size int, err, before error) error {
	if n < 0 || n > size || err != nil && n != 0 {
		t.Fatalf("%d of %d bytes, %v", n, size, err)
	}
	if err != nil && err != io.EOF && err != ErrClosed && !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if before != nil && err != before && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v, and before %v", err, before)
	}
	return err
}

// scribble changes the region all the time until the returned function is
// called. The race detector would call that what it is, so under it only the
// control block is changed, atomically.
func scribble(ctl *control, region []byte, seed uint64) (stop func()) {
	donec := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case <-donec:
				return
			default:
			}
			l := &ctl[rnd.IntN(4)]
			switch rnd.IntN(4) {
			case 0:
				l.pos.Store(rnd.Uint64() >> rnd.IntN(64))
			case 1:
				l.pos.Add(rnd.Uint64() >> (32 + rnd.IntN(32)))
			case 2:
				l.sleeping.Store(rnd.Uint32())
			case 3:
				if !raceEnabled {
					region[ControlSize+rnd.IntN(len(region)-ControlSize)]++
				}
			}
			runtime.Gosched()
		}
	})
	return func() { close(donec); wg.Wait() }
}

func BenchmarkRing(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(sizeName(size), func(b *testing.B) {
			_, x, y := ends(b, 4<<20)
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				x.Writer.Write(p)
				y.Reader.Read(p)
			}
		})
	}
}

func sizeName(n int) string {
	if n < 1<<10 {
		return "64B"
	}
	return map[int]string{4 << 10: "4KiB", 64 << 10: "64KiB"}[n]
}
