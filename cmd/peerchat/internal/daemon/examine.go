package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/internal/trace"
)

const (
	// maxSteps is how many steps of one connect are remembered: a few for each
	// carrier and round.
	maxSteps = 256
	// maxNegotiations is how many of its negotiations are: one a round.
	maxNegotiations = 16
)

// Diagnosis is how a device is reached, or why it is not. Times are in
// milliseconds.
type Diagnosis struct {
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Device  string  `json:"device"`
	Carrier string  `json:"carrier,omitempty"`
	Way     string  `json:"way,omitempty"` // of the link: direct, punched, relay; empty if not by ICE
	Path    string  `json:"path,omitempty"`
	Took    float64 `json:"connect_ms"`       // from the call to the open channel
	First   float64 `json:"first_byte_ms"`    // from the call to the first byte of the device
	RTT     float64 `json:"rtt_ms,omitempty"` // of the link; 0: not known yet
	// Linked says for how long there was a link before; 0: there was none, and
	// Events tell of this call, not of an earlier one.
	Linked float64 `json:"linked_ms,omitempty"`
	// Hops is the path from here to there.
	Hops   []Hop        `json:"hops"`
	Events []Milestone  `json:"events"`
	ICE    []ice.Report `json:"ice"`
	Notes  []string     `json:"notes,omitempty"`
	Error  string       `json:"error,omitempty"`
}

// Milestone is a step of a connect.
type Milestone struct {
	At     float64 `json:"at_ms"`
	Step   string  `json:"step"`
	Detail string  `json:"detail"`
}

// story is what is known of one connect. Those who tell it may do so at once, and
// late.
type story struct {
	began time.Time

	mu      sync.Mutex
	events  []Milestone
	reports []ice.Report
}

// with returns a context whose connects are written down. up is called when a
// path was found, and when a link has come up.
func (s *story) with(ctx context.Context, up func()) context.Context {
	ctx = trace.With(ctx, func(e trace.Event) {
		s.mu.Lock()
		if len(s.events) < maxSteps {
			s.events = append(s.events, Milestone{float64(e.At.Sub(s.began).Microseconds()) / 1000, string(e.Step), e.Detail})
		}
		s.mu.Unlock()
		if e.Step == trace.LinkUp {
			up()
		}
	})
	return ice.WithReport(ctx, func(r ice.Report) {
		s.mu.Lock()
		if len(s.reports) < maxNegotiations {
			s.reports = append(s.reports, r)
		}
		s.mu.Unlock()
		if r.Path != (peerlink.Path{}) {
			up()
		}
	})
}

// told returns what has been told so far.
func (s *story) told() ([]Milestone, []ice.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Milestone{}, s.events...), append([]ice.Report{}, s.reports...)
}

// reporting returns a context whose connects are remembered as a device's.
func (d *Daemon) reporting(ctx context.Context, to identity.DeviceID) context.Context {
	s := &story{began: time.Now()}
	return d.telling(ctx, to, s)
}

func (d *Daemon) telling(ctx context.Context, to identity.DeviceID, s *story) context.Context {
	return s.with(ctx, func() { d.stories.Add(to, s) })
}

// report is the story of the last negotiation that made a path to a device.
func (d *Daemon) report(of identity.DeviceID, path peerlink.Path) (ice.Report, bool) {
	s, ok := d.stories.Peek(of)
	if !ok || path == (peerlink.Path{}) {
		return ice.Report{}, false
	}
	_, reports := s.told()
	i := slices.IndexFunc(reports, func(r ice.Report) bool { return r.Path == path })
	if i < 0 {
		return ice.Report{}, false
	}
	return reports[i], true
}

// OpDoctor asks how a device is reached.
const OpDoctor control.Op[control.Examine, *Diagnosis] = "doctor"

// examine connects to a device for a command and tells how.
func (d *Daemon) examine(ctx context.Context, what control.Examine) (*Diagnosis, error) {
	if what.Addr != "" {
		if err := d.acc.Learn(what.Device, what.Addr); err != nil {
			return nil, err
		}
	}
	diag := d.diagnose(ctx, what.Device)
	return diag, context.Cause(ctx) // nil while ctx lasts
}

// diagnose connects and writes down what happens. The channel it asks for is
// declined, or closed at once: the answer to the request is the first byte. A link
// that is there is used, with the story of how it came about.
func (d *Daemon) diagnose(ctx context.Context, to identity.DeviceID) *Diagnosis {
	m := d.acc.ConnectionManager()
	g := &Diagnosis{Step: "doctor", Device: to.String(), Hops: []Hop{}, Events: []Milestone{}, ICE: []ice.Report{}}
	before, linked := linkTo(m, to)
	s := &story{began: time.Now()}
	sock, err := m.ConnectDevice(d.telling(ctx, to, s), to, chat.URI, peerlink.ConnectOptions{})
	g.Took = float64(time.Since(s.began).Microseconds()) / 1000
	g.First = g.Took
	if linked {
		g.Linked = max(float64(s.began.Sub(before.Created).Microseconds())/1000, 0.001)
		if old, ok := d.stories.Peek(to); ok {
			s = old
		}
	}
	g.Events, g.ICE = s.told()
	switch {
	case err == nil:
		defer sock.Close()
	case errors.Is(err, peerlink.ErrDeclined): // a device where nobody listens to it has answered all the same
	default:
		g.Error = d.contacts.ofContact(to, err).Error()
		g.Hops = lostHops(to)
		return g
	}
	g.OK = true
	l, there := linkTo(m, to)
	if !there { // it has just ended
		return g
	}
	if moved := d.contacts.displaced(l.Peer); moved != nil {
		g.Notes = append(g.Notes, moved.Error())
	}
	g.Carrier, g.Path, g.RTT = l.Carrier, l.Path.String(), float64(l.RTT.Microseconds())/1000
	r, told := d.report(to, l.Path)
	g.Way = r.Way
	if g.Hops = hopsOf(l, r); told {
		return g
	}
	switch {
	case linked && l.Direction == peerlink.Inbound:
		g.Notes = append(g.Notes, "the device made the link: how it found this one is told by its own doctor")
	case linked && len(g.Events) == 0:
		g.Notes = append(g.Notes, "how the link was made is not remembered")
	case g.Way == "" && g.Path != "" && len(g.ICE) > 0:
		g.Notes = append(g.Notes, "the device called this one at the same moment, and its link came first: the request below tells what was tried until then")
	}
	return g
}

// linkTo returns the oldest link to a device.
func linkTo(m *peerlink.ConnectionManager, to identity.DeviceID) (found peerlink.Connection, ok bool) {
	for l := range m.Links() {
		if l.Peer.Device == to && (!ok || l.Created.Before(found.Created)) {
			found, ok = l, true
		}
	}
	return found, ok
}
