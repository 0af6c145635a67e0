package ice

import "slices"

// class is how good a kind of path is.
type class int

const (
	tcpClass     class = iota // TCP to an address of one of the peer's interfaces
	udpClass                  // QUIC between any two addresses of the devices
	punchedClass              // TCP through NATs
	relayClass                // QUIC through a TURN server
	relaysClass               // QUIC through two: each side's sends to the other's
)

// classes returns the kinds of path that the engines can make, the best first:
// TCP, UDP, punched TCP, relay, two relays. Where UDP is preferred, it goes before TCP.
func classes(engines []string) []class {
	var out []class
	for _, e := range engines {
		if e == engineTCP {
			out = append(out, tcpClass)
		} else {
			out = append(out, udpClass)
		}
	}
	if slices.Contains(engines, engineTCP) {
		out = append(out, punchedClass)
	}
	if slices.Contains(engines, engineUDP) {
		out = append(out, relayClass, relaysClass)
	}
	return out
}

// classOf is the class of a TCP path to a candidate.
func classOf(typ candidateType) class {
	if typ == hostCandidate || typ == directCandidate {
		return tcpClass
	}
	return punchedClass
}

// udpClassOf is the class of a UDP path from and to an address, of which each may
// be one at a relay.
func udpClassOf(fromRelay, toRelay bool) class {
	switch {
	case fromRelay && toRelay:
		return relaysClass
	case fromRelay || toRelay:
		return relayClass
	default:
		return udpClass
	}
}
