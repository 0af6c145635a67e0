package peerlinktest

import (
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
)

// Network is what the peers of a test are on. Make one with New. Its methods may be
// called concurrently, and none of them waits. A wrong name, or another mistake,
// fails the test as t.Fatal does, which belongs on the test's goroutine.
//
// Peers go by the names that they were made with. Where a method takes names, two
// or more, it is about the lines between any two of them, in both directions and of
// all carriers (see On); without names it is about all.
type Network struct {
	*fabric
	carriers []Carrier // that the methods are about
}

// SeedVariable is the environment variable that sets the seed of what is lost. A
// test that fails on a network with losses says which seed it had. In a bubble the
// same seed loses the same packets, as far as the peers send the same ones.
const SeedVariable = "PEERLINKTEST_SEED"

// New returns a network without peers, over the given carriers in their order;
// without any, over InMemory("memory"). When the test ends, all peers are closed,
// and the test fails if a manager does not end or a stream was left open.
//
// Within a synctest bubble, New is called there, with the bubble's t, and delays
// take no time. Only carriers in memory work in a bubble.
func New(t testing.TB, carriers ...Carrier) *Network {
	t.Helper()
	if len(carriers) == 0 {
		carriers = []Carrier{InMemory("memory")}
	}
	seed := rand.Uint64()
	if s := os.Getenv(SeedVariable); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("peerlinktest: %s: %v", SeedVariable, err)
		}
	}
	f := newFabric(t, seed, carriers)
	t.Cleanup(f.end)
	return &Network{f, carriers}
}

// On returns the network as one of its carriers sees it: Shape, Cut, Reset and the
// others are then about that carrier alone. A carrier that the network does not
// have fails the test.
func (n *Network) On(carrier string) *Network {
	n.t.Helper()
	i := slices.IndexFunc(n.all, func(c Carrier) bool { return c.Name == carrier })
	if i < 0 {
		n.t.Fatalf("peerlinktest: the network has no carrier %q", carrier)
	}
	return &Network{n.fabric, n.all[i : i+1]}
}

// Shape sets the lines between the named peers; without names, also those of peers
// to come. It is about what is sent from now on, on open streams, too.
func (n *Network) Shape(l Line, names ...string) {
	n.t.Helper()
	if l.Delay < 0 || l.Jitter < 0 || l.Rate < 0 || l.Loss < 0 || l.Loss >= 1 || l.Buffer < 0 {
		n.t.Fatalf("peerlinktest: no line can be %+v", l)
	}
	carriers := n.obedient(names)
	n.alter(func() {
		n.luck = n.luck || l.Loss > 0 || l.Jitter > 0
		for _, carrier := range carriers {
			if len(names) == 0 {
				n.lines[carrier] = l
			}
		}
		n.each(carriers, names, func(w *way) { w.Line = l })
	})
}

// Cut cuts the lines between the named peers silently: from now on nothing
// arrives, and neither side is told, as if a cable was pulled or a firewall drops
// all. What is written waits, and connects wait, until Heal; datagrams are gone.
// What had arrived before can still be read. A cut that lasts longer than
// Config.Link.BeaconTimeout ends links, as their managers notice it.
func (n *Network) Cut(names ...string) {
	n.t.Helper()
	n.cut(names, func(*way) bool { return true })
}

// CutOneWay is Cut for what goes from one peer to another; the other direction
// goes on.
func (n *Network) CutOneWay(from, to string) {
	n.t.Helper()
	n.cut([]string{from, to}, func(w *way) bool { return w.from == from })
}

// Partition cuts each peer off from those of other groups. Lines within a group,
// and those of peers that are in none, stay as they are.
func (n *Network) Partition(groups ...[]string) {
	n.t.Helper()
	group := map[string]int{}
	for i, g := range groups {
		for _, name := range g {
			if of, twice := group[name]; twice && of != i {
				n.t.Fatalf("peerlinktest: %q is in two groups", name)
			}
			group[name] = i
		}
	}
	n.cut(slices.Concat(groups...), func(w *way) bool { return group[w.from] != group[w.to] })
}

func (n *Network) cut(names []string, which func(*way) bool) {
	n.t.Helper()
	carriers := n.obedient(names)
	n.alter(func() {
		n.each(carriers, names, func(w *way) { w.cut = w.cut || which(w) })
	})
}

// Heal undoes Cut, CutOneWay and Partition between the named peers; without names,
// between all, and Down too. What was written meanwhile is sent again at once; a
// real TCP would take up to as long again as the cut has lasted.
func (n *Network) Heal(names ...string) {
	n.t.Helper()
	carriers := n.obedient(names)
	n.alter(func() {
		n.each(carriers, names, func(w *way) { w.cut = false })
		if len(names) == 0 {
			maps.DeleteFunc(n.down, func(k key, _ bool) bool { return slices.Contains(carriers, k.carrier) })
		}
	})
}

// Down cuts a peer off from all others, those to come included, silently as Cut
// does: its machine sleeps, or is out of reach.
func (n *Network) Down(name string) { n.t.Helper(); n.power(name, true) }

// Up undoes Down.
func (n *Network) Up(name string) { n.t.Helper(); n.power(name, false) }

func (n *Network) power(name string, down bool) {
	n.t.Helper()
	carriers := n.known([]string{name})
	n.alter(func() {
		for _, c := range carriers {
			n.down[key{carrier: c, from: name}] = down
		}
	})
}

// Silence has the streams that are open between the named peers carry nothing any
// more, for ever and without a word, while new ones pass: a NAT has forgotten them.
func (n *Network) Silence(names ...string) {
	n.t.Helper()
	n.open(names, func(w *wire) {
		w[0].out.silenced, w[1].out.silenced = true, true
		w.hold()
	})
}

// Reset breaks the streams that are open between the named peers: both ends are
// told at once, with an error that matches syscall.ECONNRESET where the carrier
// says so, and what was under way or unread is gone. New ones pass.
func (n *Network) Reset(names ...string) {
	n.t.Helper()
	n.open(names, (*wire).reset)
}

// open calls f for each stream that is open between two of the names.
func (n *Network) open(names []string, f func(*wire)) {
	n.t.Helper()
	carriers := n.obedient(names)
	n.alter(func() {
		for _, w := range n.wires {
			k := w[0].out.way.key
			if slices.Contains(carriers, k.carrier) && (len(names) == 0 || slices.Contains(names, k.from) && slices.Contains(names, k.to)) {
				f(w)
			}
		}
	})
}

// Pipe returns a stream in memory between two peers, without TLS and a manager:
// from's end and to's. It obeys the lines of the first carrier, and has
// CloseWrite. ConnectionManager.AddConn adopts one. The test closes both.
func (n *Network) Pipe(from, to string) (net.Conn, net.Conn) {
	n.t.Helper()
	a, b := n.pipe(n.obedient([]string{from, to})[0], from, to)
	return a, b
}

// obedient returns the names of the carriers. It fails the test if one does not
// obey the network, a name is no peer's, or there is one alone.
func (n *Network) obedient(names []string) []string {
	n.t.Helper()
	if len(names) == 1 {
		n.t.Fatalf("peerlinktest: %q and which other peer? Name two or more, or none for all; or see Down", names[0])
	}
	return n.known(names)
}

func (n *Network) known(names []string) (carriers []string) {
	n.t.Helper()
	for _, c := range n.carriers {
		if !c.obeys() {
			n.t.Fatalf("peerlinktest: streams of carrier %q do not go through the network: give New its Shaped()", c.Name)
		}
		carriers = append(carriers, c.Name)
	}
	there := n.names()
	for _, name := range names {
		if !slices.Contains(there, name) {
			n.t.Fatalf("peerlinktest: there is no peer %q; there are %q", name, there)
		}
	}
	return carriers
}

// names returns the names of the peers that there are.
func (f *fabric) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.namesLocked()
}

func (f *fabric) namesLocked() (names []string) {
	for _, p := range f.peers {
		names = append(names, p.Name)
	}
	return names
}

// each calls do for each way between two of the names; none: of all peers.
// fabric.mu is held.
func (f *fabric) each(carriers, names []string, do func(*way)) {
	if len(names) == 0 {
		names = f.namesLocked()
	}
	for _, carrier := range carriers {
		for _, from := range names {
			for _, to := range names {
				if from != to {
					do(f.way(carrier, from, to))
				}
			}
		}
	}
}
