//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
)

// proven are attacks over links: of strangers and, where it says so, of contacts.
var proven = []attack{
	{name: "frames at random", do: randomFrames},
	{name: "channels that are declined and never end", do: declined, most: bounds{memory: 192 * mib}},
	{name: "long messages announced", do: longMessages},
	{name: "forwards that no rule allows", do: refusedForwards},
	{name: "channels asked for and taken back", do: takenBack},
	{name: "places of messages, lists, forwards, files", do: heldPlaces, then: tellRevoked},
	{name: "links of throw-away keys", do: throwAwayLinks, most: bounds{memory: 256 * mib}},
	{name: "messages of throw-away keys", do: throwAwayMessages, most: bounds{disk: 128 * mib}},
	{name: "a contact's lists", do: manyLists, most: bounds{written: 8 * mib}},
	{name: "a contact's empty folders", do: emptyFolders, most: bounds{entries: 6 * maxFiles}},
}

// linked runs do for n parties with a link each, of fresh keys, again and again.
func linked(ctx context.Context, w *world, n int, do func(ctx context.Context, r *raw, rnd *rand.Rand) error) {
	w.crowd(ctx, n, func(ctx context.Context, rnd *rand.Rand) error {
		id, err := stranger()
		if err != nil {
			return err
		}
		return w.linkedAs(ctx, id, func(r *raw) error { return do(ctx, r, rnd) })
	})
}

// linkedAs runs do with a link.
func (w *world) linkedAs(ctx context.Context, id *identity.Identity, do func(r *raw) error) error {
	r, err := w.link(ctx, id)
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

// randomFrames sends frames that begin as good ones, and end as any.
func randomFrames(ctx context.Context, w *world, t *tally) {
	linked(ctx, w, 4, func(ctx context.Context, r *raw, rnd *rand.Rand) error {
		var err error
		for ctx.Err() == nil && err == nil {
			_, err = r.Write(anyFrame(rnd))
			t.tried.Add(1)
		}
		return nil //nolint:nilerr // a link that was ended, as it ought to be, is followed by the next at once
	})
}

// anyFrame makes a frame of any kind, for any channel, good or not.
func anyFrame(rnd *rand.Rand) []byte {
	id := []uint16{controlID, protocolID, 1, 2, 0x7fff, 0x8000, 0xfffe, uint16(rnd.Uint32())}[rnd.IntN(8)]
	number := []any{0, 1, 255, 65536, uint32(1<<31 - 1), uint32(1 << 31), uint64(1<<64 - 1), -1}[rnd.IntN(8)]
	name := []string{"message://1", "devices://1", "forward://dial", "files://x", "", "\x1b[2J", string(make([]byte, 300))}[rnd.IntN(7)]
	bodies := [][]byte{
		hello(), request(name, id), reset(id), packed([]any{name, id, true, rnd.IntN(2) == 0, number, name}),
		packedMap("p", number, "r", rnd.IntN(2) == 0), packedMap("w", []any{id, number}), packedMap("w", []any{id, number, id}),
		packedMap("b", number), packedMap("u", []any{id, number}), packedMap("n", []any{id, number}),
		packedMap("g", []any{number, name}),
		{},
		make([]byte, rnd.IntN(1<<16)), deep(rnd.IntN(2000)),
	}
	body := bodies[rnd.IntN(len(bodies))]
	switch rnd.IntN(8) {
	case 0:
		if len(body) > 0 {
			body = append([]byte(nil), body...)
			body[rnd.IntN(len(body))] = byte(rnd.Uint32())
		}
	case 1:
		body = body[:rnd.IntN(len(body)+1)]
	}
	return appendFrame(nil, id, body[:min(len(body), 1<<16-1)])
}

// deep is arrays in arrays.
func deep(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0x91
	}
	return b
}

// declined asks for channels that nobody listens for, and never ends its half.
func declined(ctx context.Context, w *world, t *tally) {
	linked(ctx, w, 32, func(ctx context.Context, r *raw, _ *rand.Rand) error {
		for ctx.Err() == nil && r.err() == nil {
			var b []byte
			for range 128 {
				if r.next == 0x8000 {
					<-ctx.Done()
					return nil
				}
				b = appendFrame(b, controlID, request("nobody://listens", r.next))
				r.next++
			}
			if _, err := r.Write(b); err != nil {
				return err
			}
			t.tried.Add(128)
			_ = pause.For(ctx, 5*time.Millisecond)
		}
		return r.err()
	})
}

// longMessages announces messages, lists and parcels of all lengths on channels that it
// holds, and sends as much of them as is taken.
func longMessages(ctx context.Context, w *world, t *tally) {
	lengths := []uint32{16 << 20, 16<<20 + 1, 1<<32 - 1, 394_240, 1 << 20}
	linked(ctx, w, 4, func(ctx context.Context, r *raw, rnd *rand.Rand) error {
		step := make([]byte, 32<<10)
		var open []uint16
		for range 160 {
			name := []string{"message://1", "message://1", "message://1", "devices://1", fmt.Sprintf("files://%032x", rnd.Uint64())}[rnd.IntN(5)]
			id, err := r.open(name, announced(lengths[rnd.IntN(len(lengths))], 1024))
			if err != nil {
				return err
			}
			t.tried.Add(1)
			open = append(open, id)
		}
		for ctx.Err() == nil {
			for _, id := range open {
				if err := r.frame(id, step); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// refusedForwards asks for what no rule allows, with addresses that make long lines.
func refusedForwards(ctx context.Context, w *world, t *tally) {
	linked(ctx, w, 8, func(ctx context.Context, r *raw, rnd *rand.Rand) error {
		for ctx.Err() == nil && r.err() == nil && r.next < 0x7fff {
			body := fmt.Appendf(nil, `{"addr":"/%0200d%d"}`, 0, rnd.Uint64())
			id, err := r.open([]string{"forward://dial", "forward://listen"}[rnd.IntN(2)], append([]byte{byte(len(body) >> 8), byte(len(body))}, body...))
			if err == nil {
				err = r.frame(id, nil)
			}
			if err != nil {
				return err
			}
			t.tried.Add(1)
		}
		return r.err()
	})
}

// takenBack asks for channels and resets them at once, as fast as the link takes it.
func takenBack(ctx context.Context, w *world, t *tally) {
	linked(ctx, w, 8, func(ctx context.Context, r *raw, _ *rand.Rand) error {
		for ctx.Err() == nil && r.err() == nil && r.next < 0x7f00 {
			var b []byte
			for range 64 {
				b = appendFrame(b, controlID, request("message://1", r.next))
				b = appendFrame(b, protocolID, reset(r.next))
				r.next++
			}
			if _, err := r.Write(b); err != nil {
				return err
			}
			t.tried.Add(64)
		}
		return r.err()
	})
}

// heldPlaces opens channels of each kind, more than there are places for a device, and
// says nothing on them.
func heldPlaces(ctx context.Context, w *world, t *tally) {
	names := []string{"message://1", "devices://1", "forward://dial", "forward://listen"}
	linked(ctx, w, 12, func(ctx context.Context, r *raw, rnd *rand.Rand) error {
		for _, name := range names {
			for range 128 {
				if _, err := r.open(name, nil); err != nil {
					return err
				}
				t.tried.Add(1)
			}
		}
		for range 64 {
			if _, err := r.open(fmt.Sprintf("files://%032x", rnd.Uint64()), nil); err != nil {
				return err
			}
			t.tried.Add(1)
		}
		// Places are given up after a while: what was refused is asked for again.
		_ = pause.For(ctx, 5*time.Second)
		return r.err()
	})
}

// throwAwayLinks makes links of ever new keys and keeps them.
func throwAwayLinks(ctx context.Context, w *world, t *tally) {
	const each = 8
	held, drop := context.WithCancel(ctx)
	defer drop()
	w.crowd(ctx, 4, func(ctx context.Context, _ *rand.Rand) error {
		id, err := stranger()
		for range each {
			if err == nil {
				_, err = w.link(held, id) // closed with held
				t.tried.Add(1)
			}
		}
		return err
	})
}

// throwAwayMessages sends the longest messages, each key as many as are taken.
func throwAwayMessages(ctx context.Context, w *world, t *tally) {
	text := strings.Repeat("x", 64<<10)
	w.crowd(ctx, 4, func(ctx context.Context, _ *rand.Rand) error {
		id, err := stranger()
		if err != nil {
			return err
		}
		ms, end, err := w.messages(ctx, id)
		if err != nil {
			return err
		}
		defer end()
		for range 256 {
			t.tried.Add(1)
			if err := say(ms, text); err != nil {
				return err
			}
		}
		return nil
	})
}
