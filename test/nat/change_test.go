//go:build linux

package nat

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// again is how long it may take until a device that has moved is reached.
const again = 15 * time.Second

// converse starts a chat from a to b, and waits until a line has come through.
func (d *peer) converse(to *peer) *process {
	d.n.t.Helper()
	q := d.call("chat", to.device)
	q.wait(20*time.Second, "that it is connected", func(e event) bool { return strings.Contains(e.raw, "connected to") })
	return q
}

// ended waits until a chat notices that its link is gone. The log may tell, or
// the command, which ends then.
func (q *process) ended() (noticed time.Duration, why string) {
	q.t.Helper()
	start := time.Now()
	e := q.wait(20*time.Second, "that its link has ended", func(e event) bool {
		return strings.Contains(e.raw, "link ended") || strings.HasPrefix(e.raw, "peerchat: channel ")
	})
	return e.at.Sub(start), e.raw
}

// An interface goes down and comes back with another address, which is what
// walking from one network to another is. Both ends notice within three
// seconds, and the device is reached again.
// fault: F2
func TestAnInterfaceThatComesBackWithAnotherAddress(t *testing.T) {
	n := newNetwork(t, relaying...)
	a, b := n.device(n.host("a", coneDrop)), n.device(n.host("b", coneDrop))
	chat := a.converse(b)
	host, gateway := n.ns(b.name), strings.TrimSuffix(b.inside, "2")+"1"
	n.ip("-n", host, "link", "set", "eth0", "down")
	noticed, why := chat.ended()
	chat.stop()
	fmt.Printf("interface lost: the other end knows after %v\n", noticed.Round(10*time.Millisecond))
	if noticed > 3*time.Second {
		t.Errorf("noticed after %v: %s", noticed, why)
	}
	n.ip("-n", host, "addr", "flush", "dev", "eth0")
	n.ip("-n", host, "addr", "add", strings.TrimSuffix(b.inside, "2")+"77/24", "dev", "eth0")
	n.ip("-n", host, "link", "set", "eth0", "up")
	n.ip("-n", host, "route", "replace", "default", "via", gateway)
	a.sending = filepath.Join(t.TempDir(), "third") // the one that chatted is called back
	o, took := a.reached(b, again, "")
	fmt.Printf("interface back with another address: reached %v later, %s by %s\n", took.Round(10*time.Millisecond), o.way, o.engine())
	if o.way != "punched" { // a relay may be known before the new address is
		a.reached(b, again, "punched")
	}
}

// Bytes are under way when a path over TCP is lost: while they are, the system
// sends no keepalive, and would try again for minutes.
// fault: F2
func TestBytesUnderWayDoNotHideALostPath(t *testing.T) {
	n := newNetwork(t)
	a, b := n.device(n.host("a", public)), n.device(n.host("b", public))
	a.examine(b) // makes the account
	a.only(t, "tcp")
	chat := a.converse(b)
	b.hears(chat, "the first line")
	n.ip("-n", n.ns(b.name), "link", "set", "pub", "down")
	if _, err := io.WriteString(chat.in, "into the void\n"); err != nil {
		t.Fatal(err)
	}
	noticed, why := chat.ended()
	chat.stop()
	fmt.Printf("interface lost with bytes under way over TCP: the other end knows after %v\n", noticed.Round(10*time.Millisecond))
	if noticed > 3*time.Second {
		t.Errorf("noticed after %v: %s", noticed, why)
	}
}

// hears has a chat say a line, and waits until the other end has it.
func (d *peer) hears(q *process, line string) time.Duration {
	q.t.Helper()
	start := time.Now()
	if _, err := io.WriteString(q.in, line+"\n"); err != nil {
		q.t.Fatal(err)
	}
	e := d.listen.wait(20*time.Second, "the line", func(e event) bool { return strings.Contains(e.raw, line) })
	return e.at.Sub(start)
}

// The side that called gets another address while it speaks over QUIC: the link
// moves with it, and nothing has to be connected anew.
// fault: F2
func TestALinkFollowsItsCallerToAnotherAddress(t *testing.T) {
	n := newNetwork(t)
	a, b := n.device(n.host("a", public)), n.device(n.host("b", public))
	a.examine(b) // makes the account
	a.only(t, "udp")
	chat := a.converse(b)
	b.hears(chat, "the first line")
	host := n.ns(a.name)
	n.ip("-n", host, "addr", "flush", "dev", "pub")
	n.ip("-n", host, "addr", "add", "203.0.113.150/24", "dev", "pub")
	took := b.hears(chat, "the second line")
	for len(chat.lines) > 0 {
		if e := <-chat.lines; strings.Contains(e.raw, "link ended") {
			t.Errorf("the link has ended: %s", e.raw)
		}
	}
	fmt.Printf("caller with another address: the same link carries on after %v\n", took.Round(10*time.Millisecond))
}

// only has the account that calls use one engine.
func (d *peer) only(t *testing.T, engine string) {
	t.Helper()
	path := filepath.Join(d.sending, "config.json")
	b, err := os.ReadFile(path)
	cfg := map[string]any{}
	if err == nil {
		err = json.Unmarshal(b, &cfg)
	}
	cfg["engines"] = []string{engine}
	if err == nil {
		b, err = json.Marshal(cfg)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A router that restarts forgets all mappings and takes other ports: the link
// ends within three seconds, or goes on from the new port, and the next call
// finds the device at its new port.
// fault: F2
func TestANATThatForgetsItsMappings(t *testing.T) {
	n := newNetwork(t, relaying...)
	a, b := n.device(n.host("a", coneDrop)), n.device(n.host("b", coneDrop))
	chat := a.converse(b)
	// Another public address for the router is the same to the mappings as
	// forgetting them: none fits any more.
	router := n.ns(b.router)
	n.ip("-n", router, "addr", "flush", "dev", "pub")
	n.ip("-n", router, "addr", "add", "203.0.113.200/24", "dev", "pub")
	noticed, why := chat.ended()
	chat.stop()
	fmt.Printf("router with another address: the other end knows after %v\n", noticed.Round(10*time.Millisecond))
	if noticed > 3*time.Second {
		t.Errorf("noticed after %v: %s", noticed, why)
	}
	a.sending = filepath.Join(t.TempDir(), "third") // the one that chatted is called back
	o, took := a.reached(b, again, "")
	fmt.Printf("router with another address: reached %v later, %s by %s\n", took.Round(10*time.Millisecond), o.way, o.engine())
	if o.way != "punched" && o.way != "relay" {
		t.Errorf("reached by %s (%s)", o.way, o.path)
	}
}

// Without any node, and so without STUN, hosts of one network still connect at
// a known address.
func TestALocalNetworkNeedsNoServers(t *testing.T) {
	l := newLab(t)
	n := &network{lab: l}
	a, b := n.host("a", public), n.host("b", public)
	d := &peer{place: b, n: n, folder: t.TempDir()}
	d.listen = b.start("listen", "--account", t.TempDir()+"/account", "--tcp", b.inside+":4100", "--into", d.folder, "--accept", "always")
	ready := d.listen.step(20*time.Second, "ready")
	d.device = ready.json["device"].(string)
	q := a.start("doctor", d.device+"@"+b.inside+":4100", "--account", t.TempDir()+"/account")
	if e := q.step(20*time.Second, "doctor"); e.json["ok"] != true {
		t.Errorf("doctor: %s", e.raw)
	}
}
