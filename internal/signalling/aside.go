package signalling

import (
	"slices"
	"time"

	"peerlink/identity"
)

const (
	// asideMost is how many messages an Aside keeps; one sender has an eighth.
	asideMost = 64
	asideLife = 10 * time.Second
)

// Aside keeps messages that have overtaken the one that they belong to, as they
// may come over another way: 64 in all, 8 of one sender, for 10 s. Its zero
// value is empty; it must not be used concurrently.
type Aside[Key comparable, Message any] struct {
	kept []aside[Key, Message] // oldest first
}

type aside[Key comparable, Message any] struct {
	from identity.DeviceID
	key  Key
	m    Message
	at   time.Time
}

// Put keeps a message, in place of the oldest one if there is no room; what is
// more than its sender's share is dropped.
func (a *Aside[Key, Message]) Put(from identity.DeviceID, key Key, m Message, now time.Time) {
	a.kept = slices.DeleteFunc(a.kept, func(k aside[Key, Message]) bool { return now.Sub(k.at) >= asideLife })
	share := 0
	for _, k := range a.kept {
		if k.from == from {
			share++
		}
	}
	if share >= asideMost/8 {
		return
	}
	if len(a.kept) == asideMost {
		a.kept = slices.Delete(a.kept, 0, 1)
	}
	a.kept = append(a.kept, aside[Key, Message]{from, key, m, now})
}

// Take removes and returns the messages of one sender under a key.
func (a *Aside[Key, Message]) Take(from identity.DeviceID, key Key, now time.Time) []Message {
	var out []Message
	a.kept = slices.DeleteFunc(a.kept, func(k aside[Key, Message]) bool {
		old, fits := now.Sub(k.at) >= asideLife, k.from == from && k.key == key
		if fits && !old {
			out = append(out, k.m)
		}
		return fits || old
	})
	return out
}
