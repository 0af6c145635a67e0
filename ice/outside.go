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
	seen    []sighting     // oldest first
	awaited map[string]int // servers of each engine whose first answer is under way
	changed pause.Bell
}

// await counts a server in that an engine has asked for the first time. The
// function that it returns counts the server out, at its answer or failure, and
// may be called again.
func (o *outside) await(engine string) (heard func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.awaited == nil {
		o.awaited = make(map[string]int)
	}
	o.awaited[engine]++
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.awaited[engine]--
	})
}

// isAwaited tells whether an engine has no address from outside yet, and a
// server may still name one.
func (o *outside) isAwaited(engine string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.awaited[engine] > 0 && !slices.ContainsFunc(o.seen, func(s sighting) bool {
		return s.engine == engine && s.c.typ != relayCandidate
	})
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
