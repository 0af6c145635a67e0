package ice

import (
	"slices"
	"sync"

	"peerlink/internal/pause"
)

// maxSightings bounds what is remembered of how this device looks from outside:
// two address families of each engine and server, mappings and a relay.
const maxSightings = 4*maxServers + 8

// sighting is one address of this device as somebody else knows it.
type sighting struct {
	engine, source string
	c              candidate
}

// outside is what servers and routers say of this device's addresses. It is
// the Transport's, as the engines' ports are, so that most offers can carry it
// at once.
type outside struct {
	mu      sync.Mutex
	seen    []sighting // oldest first
	changed pause.Bell
}

// set replaces what source says for an engine.
func (o *outside) set(engine, source string, c candidate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, s := range o.seen {
		if s.engine == engine && s.source == source {
			if s.c == c {
				return
			}
			o.seen = slices.Delete(o.seen, i, i+1)
			break
		}
	}
	if len(o.seen) == maxSightings {
		return
	}
	o.seen = append(o.seen, sighting{engine, source, c})
	o.changed.Ring()
}

// clear forgets what source said.
func (o *outside) clear(engine, source string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = slices.DeleteFunc(o.seen, func(s sighting) bool { return s.engine == engine && s.source == source })
}

// news returns a channel that is closed at the next change. Take it before of.
func (o *outside) news() <-chan struct{} { return o.changed.Next() }

// of returns the candidates of an engine.
func (o *outside) of(engine string) []candidate {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []candidate
	for _, s := range o.seen {
		if s.engine == engine && !slices.Contains(out, s.c) {
			out = append(out, s.c)
		}
	}
	return out
}
