package dht

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// clock compares this device's clock with those of the nodes that it listens at.
// Nothing is set by it: nodes may lie. It only lets an error say what is likely
// wrong, as a device whose clock is off is refused by everybody and told by
// nobody. The zero value is ready; its methods may be called concurrently.
type clock struct {
	mu     sync.Mutex
	ahead  map[peer.ID]time.Duration // of each node's clock, to the round trip
	warned bool
}

// note keeps how far this clock is ahead of a node's, and reports whether that
// made it look wrong for the first time.
func (c *clock) note(p peer.ID, ahead time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead == nil {
		c.ahead = make(map[peer.ID]time.Duration)
	}
	c.ahead[p] = ahead
	wrong := c.median().Abs() > freshness
	first := wrong && !c.warned
	c.warned = wrong
	return first
}

// forget drops a node that is not listened at any more.
func (c *clock) forget(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ahead, p)
}

// off is how far this clock is ahead of the middle one of all nodes; 0 if none
// is known.
func (c *clock) off() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.median()
}

// median is off. The caller holds mu. Of an even number it takes the one nearer
// to 0, so that one node of two cannot make a clock look wrong.
func (c *clock) median() time.Duration {
	if len(c.ahead) == 0 {
		return 0
	}
	all := slices.Sorted(maps.Values(c.ahead))
	a, b := all[(len(all)-1)/2], all[len(all)/2]
	if a.Abs() < b.Abs() {
		return a
	}
	return b
}

// hint names the clock where it may be why something fails; else it is empty.
func (c *clock) hint() string {
	off := c.off()
	switch {
	case off > freshness:
		return fmt.Sprintf(" (this device's clock is %v ahead of most nodes': set it, others refuse what comes from the future)", off.Round(time.Second))
	case off < -freshness:
		return fmt.Sprintf(" (this device's clock is %v behind most nodes': set it, others refuse what is old)", -off.Round(time.Second))
	}
	return ""
}
