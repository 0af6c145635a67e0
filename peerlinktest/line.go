package peerlinktest

import (
	"math/rand/v2"
	"time"
)

// Line is how one carrier's bytes get from one peer to another. The zero value
// takes no time and loses nothing.
type Line struct {
	// Delay is how long each byte is under way.
	Delay time.Duration
	// Jitter is how much longer a packet may be under way, at random. Datagrams may
	// overtake each other then; streams keep their order.
	Jitter time.Duration
	// Rate is how many bytes a second the line takes, of all streams and datagrams
	// between the two peers together. 0: any number.
	Rate int
	// Loss is the share of packets (1 460 bytes of a stream, or a datagram) that is
	// lost, from 0 to less than 1. A datagram is gone. A stream's packet is sent
	// again, as TCP does: it comes one round trip later for each loss, 1 ms at
	// least, and what was written after it waits for it.
	Loss float64
	// Buffer is how many bytes of one stream may be under way or unread; Write
	// waits for room. Datagrams that would wait behind more than that for a line
	// with a Rate are dropped. 0: 256 KiB, the usual limit of a socket's two buffers,
	// and what the line carries within Delay.
	Buffer int
}

// segment is how long a stream's packets are: what TCP puts into an Ethernet
// frame.
const segment = 1460

// plain reports whether all bytes of a write arrive at once.
func (l Line) plain() bool { return l.Rate == 0 && l.Loss == 0 && l.Jitter == 0 }

func (l Line) buffer() int {
	if l.Buffer > 0 {
		return l.Buffer
	}
	return 256<<10 + int(float64(l.Rate)*l.Delay.Seconds())
}

// key names a way: a carrier between two peers, in one direction.
type key struct{ carrier, from, to string }

// way is one direction between two peers. Its fields are guarded by fabric.mu.
type way struct {
	key
	Line
	cut  bool
	dice *rand.Rand
	free time.Time // when it can take the next packet
	rest int64     // of the division by Rate, so that many packets take the exact time
}

// arrival returns when a packet of n bytes arrives that is sent now, and charges
// it to the line.
func (w *way) arrival(n int) time.Time {
	if now := time.Now(); w.free.Before(now) {
		w.free, w.rest = now, 0
	}
	if w.Rate > 0 {
		cost := int64(n)*int64(time.Second) + w.rest
		w.free, w.rest = w.free.Add(time.Duration(cost/int64(w.Rate))), cost%int64(w.Rate)
	}
	at := w.free.Add(w.Delay)
	if w.Jitter > 0 {
		at = at.Add(time.Duration(w.dice.Int64N(int64(w.Jitter))))
	}
	return at
}

// lost reports whether a packet is lost.
func (w *way) lost() bool { return w.Loss > 0 && w.dice.Float64() < w.Loss }
