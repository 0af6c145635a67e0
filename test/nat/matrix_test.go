//go:build linux

package nat

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mebibytes is what each side sends to the other in each cell.
const mebibytes = 64

// expected are the ways that each pair may go, as the rules of its NATs say.
func expected(a, b kind) []string {
	if a > b {
		a, b = b, a
	}
	switch {
	case a == public && b >= coneNoUDP:
		return []string{"direct tcp"}
	case a == public:
		return []string{"direct"}
	case a == coneDrop && (b == coneDrop || b == coneReject):
		return []string{"punched"}
	case a == coneReject && b == coneReject:
		return []string{"punched udp"} // of TCP each SYN kills the other's hole
	case a == coneDrop && b == coneNoUDP, a == coneNoUDP && b == coneNoUDP:
		return []string{"punched tcp"}
	case a == coneReject && b == coneNoUDP:
		return []string{"punched tcp", "relay"} // if the two SYNs cross
	default:
		return []string{"relay"}
	}
}

// outcome is a cell of the table.
type outcome struct {
	way, path string
	first     float64 // milliseconds
	speed     [2]float64
	why       string
	relay     string  // this side's server
	rtt       float64 // milliseconds, of the link
	steps     []any   // of the connect
}

func (o outcome) engine() string { engine, _, _ := strings.Cut(o.path, " "); return engine }

// by is how the bytes go, for the table.
func (o outcome) by() string {
	switch _, transport, over := strings.Cut(o.relay, " over "); {
	case over:
		return "own, " + transport
	case o.way == "relay":
		return "other's"
	}
	return o.engine()
}

// Each pair of NATs connects by the best way that there is for it, and carries
// 64 MiB both ways.
// fault: F1
func TestEachPairOfNATsConnectsByTheExpectedWay(t *testing.T) {
	n := newNetwork(t, relaying...)
	var rows []string
	for a := range kinds {
		for b := a; b < kinds; b++ {
			t.Run(fmt.Sprintf("%s×%s", a, b), func(t *testing.T) {
				o := n.cell(t, a, b)
				rows = append(rows, fmt.Sprintf("| %-12s | %-12s | %-7s | %-8s | %7.0f | %6.0f | %6.0f |", a, b, o.way, o.by(), o.first, o.speed[0], o.speed[1]))
				if o.why != "" {
					t.Logf("relayed because %s", o.why)
				}
				for _, want := range expected(a, b) {
					way, engine, only := strings.Cut(want, " ")
					if o.way == way && (!only || o.engine() == engine) {
						return
					}
				}
				t.Errorf("connected by %s (%s), want one of %q", o.way, o.path, expected(a, b))
			})
		}
	}
	fmt.Printf("\n| A            | B            | way     | by       | 1st ms | →MB/s  | ←MB/s  |\n|---|---|---|---|---|---|---|\n%s\n\n", strings.Join(rows, "\n"))
}

// The first questions to the server, from where the caller is seen, are lost: the
// pair is punched through all the same, as the questions are repeated before a
// relay is taken.
func TestLostQuestionsDoNotLeadToARelay(t *testing.T) {
	n := newNetwork(t, relaying...)
	behind := n.host("a", coneReject)
	a, b := n.device(behind), n.device(n.host("b", coneReject))
	behind.nft("table ip lost { chain c { type filter hook forward priority -10; " +
		"udp dport 3478 udp length 28 quota until 250 bytes counter drop; }; }") // five packets of 48
	if o := a.examine(b); o.way != "punched" {
		t.Errorf("connected by %s (%s): %s", o.way, o.path, o.why)
	}
	if behind.dropped("ip lost") == 0 {
		t.Error("no question was lost")
	}
}

// cell connects two hosts.
func (n *network) cell(t *testing.T, ka, kb kind) outcome {
	l := &lab{t: t, prefix: n.prefix}
	l.hosts.Store(n.hosts.Load())
	defer func() { n.hosts.Store(l.hosts.Load()) }()
	sub := &network{lab: l, bootstrap: n.bootstrap}
	a := sub.device(l.host(fmt.Sprintf("a%d%d", ka, kb), ka))
	b := sub.device(l.host(fmt.Sprintf("b%d%d", ka, kb), kb))
	o := a.examine(b)
	way := o.way
	if len(expected(ka, kb)) > 1 {
		way = "" // by chance, so the next link may differ
	}
	o.speed[0] = a.send(b, mebibytes<<20, way)
	o.speed[1] = b.send(a, mebibytes<<20, "")
	return o
}

// examine has the doctor connect.
func (d *peer) examine(to *peer) outcome {
	d.n.t.Helper()
	q := d.call("doctor", to.device)
	e := q.step(40*time.Second, "doctor")
	if err := q.finish(10 * time.Second); err != nil || e.json["ok"] != true {
		d.n.t.Fatalf("doctor: %v: %s\n%s\n-- the other side:\n%s", err, e.raw, q.said(), to.listen.said())
	}
	o := outcomeOf(e)
	if o.way == "relay" && o.why == "" {
		d.n.t.Errorf("relayed without a reason: %s", e.raw)
	}
	return o
}

// outcomeOf reads what the doctor says.
func outcomeOf(e event) outcome {
	o := outcome{first: e.json["first_byte_ms"].(float64)}
	o.rtt, _ = e.json["rtt_ms"].(float64)
	o.steps, _ = e.json["events"].([]any)
	o.way, _ = e.json["way"].(string)
	o.path, _ = e.json["path"].(string)
	if reports, ok := e.json["ice"].([]any); ok && len(reports) > 0 {
		o.why, _ = reports[0].(map[string]any)["why_relayed"].(string)
		o.relay, _ = reports[0].(map[string]any)["relay"].(string)
	}
	return o
}

// send sends a file, compares, and returns the speed in MB/s, from the link to
// the verified file. way is the one that must be taken; empty leaves it open.
func (d *peer) send(to *peer, size int, way string) float64 {
	d.n.t.Helper()
	speed, why := d.trySend(to, size, way)
	if why != "" {
		d.n.t.Fatalf("send: %s", why)
	}
	return speed
}

// sendAtLast is send over a link that may be too bad for it at times, where the
// program has to say that it lost the link.
func (d *peer) sendAtLast(to *peer, size int) float64 {
	d.n.t.Helper()
	for try := 1; ; try++ {
		speed, why := d.trySend(to, size, "")
		switch {
		case why == "":
			return speed
		case try == 5 || !strings.Contains(why, "lost") && !strings.Contains(why, "link"):
			d.n.t.Fatalf("send, for the %d. time: %s", try, why)
		}
		fmt.Printf("a link was lost: %.300s\n", why)
	}
}

// trySend is send; why is what the program says where it failed.
func (d *peer) trySend(to *peer, size int, way string) (speed float64, why string) {
	t := d.n.t
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	name := fmt.Sprintf("from-%s-%s.bin", d.name, rand.Text()[:8])
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	q := d.call("send", to.device, file)
	up := q.wait(40*time.Second, "that it is connected", func(e event) bool { return e.json == nil && strings.Contains(e.raw, "ice: connected") })
	if way != "" && !strings.Contains(up.raw, "way="+way) {
		t.Errorf("the file goes another way than %s: %s", way, up.raw)
	}
	e := q.step(90*time.Second, "file")
	if e.json["ok"] != true {
		return 0, fmt.Sprintf("%s\n%s", e.raw, q.said())
	}
	if err := q.finish(10 * time.Second); err != nil {
		return 0, err.Error()
	}
	got, err := os.ReadFile(filepath.Join(to.folder, name))
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Fatal("the file differs")
	}
	return float64(len(data)) / 1e6 / e.at.Sub(up.at).Seconds(), ""
}
