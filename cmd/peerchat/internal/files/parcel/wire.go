package parcel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// Scheme begins the names of channels that carry parcels.
const Scheme = "files://"

const (
	version    = 2
	headLen    = 5
	minPiece   = 64 << 10
	maxPiece   = 1 << 20
	maxMessage = 16 << 10
	maxReason  = 255
	maxNames   = 16
	// window is how many entries may be under way: enough for 256 small files a
	// round trip.
	window = 256
	// quiet and silence are when something is sent lest the other gives up, and
	// when it does.
	// lastWord is how long a sender waits for the reason after a write that failed.
	quiet    = 15 * time.Second
	lastWord = 5 * time.Second
	silence  = 60 * time.Second
)

// kind says what a frame is.
type kind uint8

const (
	kindNothing kind = 0
	kindOffer   kind = 1
	kindAnswer  kind = 2
	kindEntry   kind = 3
	kindCompare kind = 4
	kindDigest  kind = 5
	kindWant    kind = 6
	kindStart   kind = 8
	kindPiece   kind = 9
	kindBroken  kind = 10
	kindKept    kind = 11
	kindFailed  kind = 12
	kindEnd     kind = 13
	kindList    kind = 14
)

// ErrProtocol is matched when the other side breaks the rules of the wire.
var ErrProtocol = errors.New("not a transfer as it should be")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// wire sends and receives frames. One goroutine reads, any may write.
type wire struct {
	conn  net.Conn
	br    *bufio.Reader
	armed time.Time // when the read deadline was set last

	wmu   sync.Mutex
	bw    *bufio.Writer
	wrote atomic.Int64 // Unix time in ns of the last write
}

func newWire(conn net.Conn) *wire {
	w := &wire{conn: conn}
	w.br = bufio.NewReaderSize(readerFunc(w.read), 64<<10)
	w.bw = bufio.NewWriterSize(writerFunc(w.write), 16<<10)
	return w
}

type (
	readerFunc func([]byte) (int, error)
	writerFunc func([]byte) (int, error)
)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// read fails after silence without a byte.
func (w *wire) read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(w.armed) > time.Second {
		w.armed = now
		if err := w.conn.SetReadDeadline(now.Add(silence)); err != nil {
			return 0, err
		}
	}
	n, err := w.conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the other side was silent for %v: %w", silence, err)
	}
	return n, err
}

// write fails when for silence not a byte of p was taken.
func (w *wire) write(p []byte) (total int, err error) {
	for {
		if err := w.conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
			return total, err
		}
		n, err := w.conn.Write(p[total:])
		total += n
		w.wrote.Store(time.Now().UnixNano())
		if n > 0 && total < len(p) && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		return total, err
	}
}

// next reads a frame's head. The body follows.
func (w *wire) next() (kind, int, error) {
	for {
		head, err := w.br.Peek(headLen)
		if err != nil {
			if err == io.EOF && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, 0, err
		}
		k, n := kind(head[4]), binary.BigEndian.Uint32(head)
		_, _ = w.br.Discard(headLen)
		switch {
		case k == kindPiece && (n < digest.Size || n > maxPiece+digest.Size):
			return 0, 0, violation("a piece of %d bytes", n)
		case k != kindPiece && n > maxMessage:
			return 0, 0, violation("a message of %d bytes, at most %d are taken", n, maxMessage)
		case k == kindNothing:
			if _, err := w.br.Discard(int(n)); err != nil {
				return 0, 0, unexpected(err)
			}
			continue
		}
		return k, int(n), nil
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// queue writes a message that waits for flush; send writes it at once.
func (w *wire) queue(k kind, elems ...any) error {
	frame, err := encode(k, elems)
	if err != nil {
		return err
	}
	w.wmu.Lock()
	defer w.wmu.Unlock()
	_, err = w.bw.Write(frame)
	return err
}

func (w *wire) send(k kind, elems ...any) error {
	if err := w.queue(k, elems...); err != nil {
		return err
	}
	return w.flush()
}

func (w *wire) flush() error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return w.bw.Flush()
}

// sendFrame writes a whole frame after all that waits.
func (w *wire) sendFrame(b []byte) error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if err := w.bw.Flush(); err != nil {
		return err
	}
	_, err := w.write(b)
	return err
}

func encode(k kind, elems []any) ([]byte, error) {
	if elems == nil {
		elems = []any{}
	}
	frame := bytes.NewBuffer(make([]byte, headLen, 64))
	enc := msgpack.NewEncoder(frame)
	enc.UseCompactInts(true)
	if err := enc.Encode(elems); err != nil {
		return nil, err
	}
	b := frame.Bytes()
	if n := len(b) - headLen; n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes, at most %d may be sent", n, maxMessage)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-headLen))
	b[headLen-1] = byte(k)
	return b, nil
}

// breathe sends nothing, now and then, until stop is closed.
func (w *wire) breathe(stop <-chan struct{}) {
	t := time.NewTicker(quiet / 3)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		if time.Since(time.Unix(0, w.wrote.Load())) < quiet*2/3 || !w.wmu.TryLock() {
			continue
		}
		w.wmu.Unlock()
		if w.send(kindNothing) != nil {
			return
		}
	}
}
