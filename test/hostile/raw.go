//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/tlssock"
)

// raw is a proven link whose frames are written by hand. One goroutine writes.
type raw struct {
	*tlssock.Conn
	next uint16 // the id of the next channel
	read sync.WaitGroup

	mu       sync.Mutex
	accepted map[uint16]bool // what was answered, by channel
	ended    error           // why no more frames are read
}

// The ids of frames that are no channel's.
const (
	controlID  = 0
	protocolID = 0xffff
)

// proveTimeout is how long a hostile party waits for a proof: what takes longer was
// refused.
const proveTimeout = 10 * time.Second

// prove dials the victim and proves an identity.
func (w *world) prove(ctx context.Context, as *identity.Identity) (*tlssock.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.tcp)
	if err != nil {
		return nil, err
	}
	return tlssock.Client(ctx, conn, as, w.victim)
}

// link makes a raw link. Its frames are read and forgotten, but for the answers; it
// is closed when ctx ends.
func (w *world) link(ctx context.Context, as *identity.Identity) (*raw, error) {
	conn, err := w.prove(ctx, as)
	if err != nil {
		return nil, err
	}
	r := &raw{Conn: conn, next: 1, accepted: map[uint16]bool{}}
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	heard := make(chan struct{})
	r.read.Go(func() {
		defer stop()
		r.hear(heard)
	})
	if err := r.frame(protocolID, hello()); err != nil {
		r.Close()
		return nil, err
	}
	select { // the first frame says that the link was taken
	case <-heard:
	case <-ctx.Done():
	}
	if r.mu.Lock(); r.ended != nil {
		err = r.ended
	}
	r.mu.Unlock()
	if err != nil {
		r.Close()
	}
	return r, err
}

// Close ends the link without a word.
func (r *raw) Close() error {
	err := r.NetConn().Close()
	r.read.Wait()
	return err
}

// hear reads frames until the link ends, and notes what was accepted; heard is closed
// with the first.
func (r *raw) hear(heard chan struct{}) {
	br := bufio.NewReader(r.Conn)
	var once sync.Once
	defer once.Do(func() { close(heard) })
	for {
		var head [4]byte
		_, err := io.ReadFull(br, head[:])
		body := make([]byte, binary.BigEndian.Uint16(head[:]))
		if err == nil {
			_, err = io.ReadFull(br, body)
		}
		if err == nil && binary.BigEndian.Uint16(head[2:]) == protocolID && bytes.HasPrefix(body, []byte{0x81, 0xa1, 'g'}) {
			err = fmt.Errorf("it was ended: %q", body)
		}
		if err != nil {
			r.mu.Lock()
			r.ended = err
			r.mu.Unlock()
			return
		}
		once.Do(func() { close(heard) })
		if binary.BigEndian.Uint16(head[2:]) == controlID {
			r.note(body)
		}
	}
}

// note notes answers.
func (r *raw) note(body []byte) {
	for dec := msgpack.NewDecoder(bytes.NewReader(body)); ; {
		v, err := dec.DecodeSlice()
		if err != nil {
			return
		}
		if len(v) < 4 {
			continue
		}
		answer, _ := v[2].(bool)
		yes, _ := v[3].(bool)
		if id, ok := toUint(v[1]); answer && ok {
			r.mu.Lock()
			r.accepted[uint16(id)] = yes
			r.mu.Unlock()
		}
	}
}

func toUint(v any) (uint64, bool) {
	switch n := v.(type) {
	case int8:
		return uint64(n), n >= 0
	case uint8:
		return uint64(n), true
	case uint16:
		return uint64(n), true
	case uint32:
		return uint64(n), true
	}
	return 0, false
}

// err returns why the link has ended; nil while it lives.
func (r *raw) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// frame writes one frame.
func (r *raw) frame(channel uint16, body []byte) error {
	_, err := r.Write(appendFrame(nil, channel, body))
	return err
}

func appendFrame(b []byte, channel uint16, body []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = binary.BigEndian.AppendUint16(b, channel)
	return append(b, body...)
}

// hello is that of a peer of version 2 without features: what it opens has credit at
// once.
func hello() []byte { return packedMap("v", 2, "f", 0) }

// request asks for a channel.
func request(name string, id uint16) []byte {
	return packed([]any{name, id, false, false, uint32(1 << 20), ""})
}

// reset gives a channel up.
func reset(id uint16) []byte { return packedMap("x", []any{id, 2}) }

// open asks for a channel, and sends what follows without waiting for the answer.
func (r *raw) open(name string, early []byte) (id uint16, err error) {
	id = r.next
	if r.next++; r.next >= 0x8000 {
		return 0, errors.New("all ids are used")
	}
	b := appendFrame(nil, controlID, request(name, id))
	if len(early) > 0 {
		b = appendFrame(b, id, early)
	}
	_, err = r.Write(b)
	return id, err
}

// packed is msgpack in its shortest forms.
func packed(v any) []byte {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	_ = enc.Encode(v) // of values of this program, into memory
	return b.Bytes()
}

// packedMap is a map whose keys stand in the order of the arguments.
func packedMap(kv ...any) []byte {
	b := []byte{0x80 | byte(len(kv)/2)}
	for _, v := range kv {
		b = append(b, packed(v)...)
	}
	return b
}

// announced is a message that announces n bytes and brings fewer.
func announced(n uint32, there int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, n), make([]byte, there)...)
}

// stranger is an identity that nobody knows.
func stranger() (*identity.Identity, error) { return identity.Generate("stranger") }

// random returns the random numbers of one party of an attack. The seed is printed, so
// that a run can be repeated.
func (w *world) random(party int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(party))) }

// crowd runs do for n parties at once until ctx ends, again and again, each with
// random numbers of its own.
func (w *world) crowd(ctx context.Context, n int, do func(ctx context.Context, r *rand.Rand) error) {
	var all sync.WaitGroup
	for i := range n {
		r := w.random(i)
		all.Go(func() {
			for ctx.Err() == nil {
				if do(ctx, r) != nil {
					_ = rest(ctx) // a refusal is no reason to burn the processor that the honest need
				}
			}
		})
	}
	all.Wait()
}
