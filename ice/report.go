package ice

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peerlink/identity"
	"peerlink/internal/route"
)

// The ways a stream can go, as Report.Way says them.
const (
	wayDirect  = "direct"  // one side at least is reached at an interface of its own
	wayPunched = "punched" // through the NATs of both sides
	wayRelay   = "relay"   // through a TURN server
)

// Report is the story of one Dial: what was known, what was tried, and what came
// of it. It is for people and for JSON; all times are milliseconds since the
// Dial began.
type Report struct {
	Peer    identity.DeviceID `json:"peer"`
	Request string            `json:"request"`
	Began   time.Time         `json:"began"`
	// Local and Remote are the candidates that this side told, and was told.
	Local  []CandidateReport `json:"local"`
	Remote []CandidateReport `json:"remote"`
	// Silent are the servers that told nothing, and why.
	Silent []string `json:"silent,omitempty"`
	// Checks are what was tried.
	Checks []CheckReport `json:"checks"`
	// Way is "direct", "punched" or "relay", and Path is the pair of addresses.
	// Both are empty where there is no stream.
	Way  string     `json:"way,omitempty"`
	Path route.Path `json:"path,omitzero"`
	// Relay is the server that relays, and how it is spoken to, where it is this
	// side's; empty where the other side's does, or none.
	Relay string `json:"relay,omitempty"`
	// WhyRelayed says what speaks against a direct path; empty unless relayed.
	WhyRelayed string `json:"why_relayed,omitempty"`
	// Offered, Answered, Found and Ended are when the offer was sent, the answer
	// came, the path was found, and the Dial ended; 0 where it never did.
	Offered  float64 `json:"offered_ms,omitempty"`
	Answered float64 `json:"answered_ms,omitempty"`
	Found    float64 `json:"found_ms,omitempty"`
	Ended    float64 `json:"ended_ms"`
	Error    string  `json:"error,omitempty"`
}

// CandidateReport is an address of either side.
type CandidateReport struct {
	Engine  string         `json:"engine"`
	Type    string         `json:"type"`
	Address netip.AddrPort `json:"address"`
}

// CheckReport is one thing that was tried.
type CheckReport struct {
	Engine string  `json:"engine"`
	Target string  `json:"target"`
	OK     bool    `json:"ok"`
	Result string  `json:"result"` // the last one
	Times  int     `json:"times"`
	At     float64 `json:"at_ms"` // of the last result
}

type reportKey struct{}

// WithReport returns a context whose Dials tell their story. read is called once
// by each of them, on its goroutine, before it returns.
func WithReport(ctx context.Context, read func(Report)) context.Context {
	return context.WithValue(ctx, reportKey{}, read)
}

// report tells the story of a call.
func (c *call) report(err error) {
	read, ok := c.n.ctx.Value(reportKey{}).(func(Report))
	if !ok {
		return
	}
	r := c.n.report(c.t)
	offered, heard := c.Times()
	r.Offered, r.Answered, r.Found = c.n.after(offered), c.n.after(heard), c.n.after(c.foundAt)
	if err != nil {
		r.Error = err.Error()
	} else if c.taken != nil {
		r.Way, r.Path = c.t.way(c.n, c.taken.Remote, c.taken.class), c.taken.Path
		r.Relay = c.taken.Relay
	}
	if r.Way == wayRelay {
		r.WhyRelayed = whyRelayed(r)
	}
	read(r)
}

// after is a time in a report.
func (n *negotiation) after(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.Sub(n.began).Microseconds()) / 1000
}

// report gathers what a negotiation knows.
func (n *negotiation) report(t *Transport) Report {
	r := Report{Peer: n.peer, Request: fmt.Sprintf("%x", n.id[:4]), Began: n.began, Ended: n.after(time.Now())}
	t.mu.Lock()
	for what, why := range t.silent {
		r.Silent = append(r.Silent, what+": "+why)
	}
	t.mu.Unlock()
	slices.Sort(r.Silent)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range []string{engineTCP, engineUDP} {
		for _, c := range n.told[e] {
			r.Local = append(r.Local, CandidateReport{e, c.typ.String(), c.addr})
		}
		for _, c := range n.remote[e] {
			r.Remote = append(r.Remote, CandidateReport{e, c.typ.String(), c.addr})
		}
	}
	for _, a := range n.attempts {
		c := CheckReport{Engine: a.engine, Target: a.target, OK: a.cause == nil, Result: "works", Times: a.times, At: n.after(a.at)}
		if a.cause != nil {
			c.Result = a.cause.Error()
		}
		r.Checks = append(r.Checks, c)
	}
	return r
}

// way says how a path goes. A device without a NAT is reached directly from
// behind any; two devices behind one NAT meet at their interfaces.
func (t *Transport) way(n *negotiation, remote netip.AddrPort, c class) string {
	if c >= relayClass {
		return wayRelay
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, cs := range n.remote {
		for _, c := range cs {
			if (c.typ == hostCandidate || c.typ == directCandidate) && c.addr.Addr() == remote.Addr() {
				return wayDirect
			}
		}
	}
	for _, e := range []string{engineTCP, engineUDP} {
		for _, c := range t.outside.of(e) {
			if c.typ == srflxCandidate && !slices.Contains(n.own, c.addr.Addr()) {
				return wayPunched
			}
		}
	}
	return wayDirect
}

// whyRelayed says what is known to be in the way of a direct path.
func whyRelayed(r Report) string {
	var why []string
	seen := func(cs []CandidateReport, engine string) (addrs []netip.AddrPort) {
		for _, c := range cs {
			if c.Engine == engine && c.Type == srflxCandidate.String() {
				addrs = append(addrs, c.Address)
			}
		}
		return addrs
	}
	for _, side := range []struct {
		name string
		cs   []CandidateReport
	}{{"this device", r.Local}, {"the other device", r.Remote}} {
		udp, tcp := seen(side.cs, engineUDP), seen(side.cs, engineTCP)
		switch {
		case len(udp) == 0 && len(tcp) > 0:
			why = append(why, "no server sees "+side.name+" over UDP, which seems to be blocked there")
		case manyPorts(udp):
			why = append(why, side.name+"'s NAT takes another port for each destination (symmetric)")
		case len(udp) == 0:
			why = append(why, "no server sees "+side.name)
		}
	}
	tried := 0
	for _, c := range r.Checks {
		if !c.OK && !strings.HasPrefix(c.Target, relayCandidate.String()) {
			tried++
		}
	}
	why = append(why, fmt.Sprintf("%d direct addresses did not answer within %d ms of the answer", tried, int(r.Found-r.Answered)))
	return strings.Join(why, "; ")
}

// manyPorts tells whether servers see one address under several ports.
func manyPorts(addrs []netip.AddrPort) bool {
	for i, a := range addrs {
		for _, b := range addrs[:i] {
			if a.Addr() == b.Addr() && a.Port() != b.Port() {
				return true
			}
		}
	}
	return false
}
