//go:build linux

package nat

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A network with IPv6 alone: 2001:db8:1::/64 is public, and behind each router
// lies a network of its own, whose addresses everybody knows the way to.
const public6 = "2001:db8:1::"

// v6 has a namespace use IPv6 at once, without looking for duplicates.
func (l *lab) v6(name string) {
	l.t.Helper()
	l.run("ip", "netns", "exec", l.ns(name), "sh", "-c",
		"echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
}

// join6 gives a namespace an IPv6 address, and no other, on the public network.
func (l *lab) join6(name string) (addr string) {
	l.t.Helper()
	l.v6(name)
	n := l.hosts.Add(1)
	addr, port := fmt.Sprintf("%s%x", public6, n), fmt.Sprintf("p%d", n)
	l.ip("link", "add", "pub", "netns", l.ns(name), "type", "veth", "peer", "name", port, "netns", l.ns("pub"))
	l.ip("-n", l.ns("pub"), "link", "set", port, "master", "br0", "up")
	l.ip("-n", l.ns(name), "addr", "add", addr+"/64", "dev", "pub", "nodad")
	l.ip("-n", l.ns(name), "link", "set", "pub", "up")
	return addr
}

// guarded makes a host with IPv6 behind a router that translates nothing, and
// lets in only what was asked for.
func (n *network) guarded(name string) *place {
	n.t.Helper()
	n.namespace(name)
	n.v6(name)
	p := &place{l: n.lab, name: name, router: name + "r"}
	n.namespace(p.router)
	at := n.join6(p.router)
	host, router, own := n.ns(p.name), n.ns(p.router), fmt.Sprintf("2001:db8:%x::", 0x100+n.hosts.Load())
	n.ip("link", "add", "eth0", "netns", host, "type", "veth", "peer", "name", "lan", "netns", router)
	p.inside = own + "2"
	n.ip("-n", router, "addr", "add", own+"1/64", "dev", "lan", "nodad")
	n.ip("-n", router, "link", "set", "lan", "up")
	n.ip("-n", host, "addr", "add", p.inside+"/64", "dev", "eth0", "nodad")
	n.ip("-n", host, "link", "set", "eth0", "up")
	n.ip("-n", host, "route", "add", "default", "via", own+"1")
	n.run("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	p.nft(`table ip6 guard {
  chain passing { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname != "pub" oifname "pub" accept
    counter drop
  }
}
`)
	// Everybody on the public network knows the way to what lies behind it.
	for _, o := range n.places {
		at6, ns := at, n.ns(o.name)
		if o.router != "" { // a host that was made before: its router
			ns = n.ns(o.router)
			n.ip("-n", router, "route", "add", o.inside+"/64", "via", o.gateway)
		}
		n.ip("-n", ns, "route", "add", own+"/64", "via", at6)
	}
	p.gateway = at
	n.places = append(n.places, p)
	return p
}

// knocksInVain sends a packet that nobody asked for, and waits until the other
// host's firewall has kept it out.
func (n *network) knocksInVain(from, to *peer) {
	n.t.Helper()
	before := to.dropped("ip6 guard")
	var conn net.Conn
	if err := within(n.ns(from.name), func() (err error) {
		conn, err = net.Dial("udp6", net.JoinHostPort(to.inside, "9"))
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	for end := time.Now().Add(20 * time.Second); to.dropped("ip6 guard") == before; {
		if time.Now().After(end) {
			n.t.Fatalf("the firewall of %s keeps nothing out", to.name)
		}
		if _, err := conn.Write([]byte("knock")); err != nil {
			n.t.Fatal(err)
		}
	}
}

// Two hosts with IPv6 alone, each behind a firewall that lets nobody in: both
// open their own, and meet. Nothing is relayed, as there is no relay.
// fault: F1
func TestFirewallsWithoutTranslationOnIPv6(t *testing.T) {
	l := newLab(t)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED: %s: this kernel has no IPv6\n\n", t.Name())
		t.Skip("no IPv6")
	}
	n := &network{lab: l}
	n.startNodes(func(name string) (ip, multiaddr string) {
		ip = n.join6(name)
		return ip, "/ip6/" + ip
	})
	a, b := n.device(n.guarded("a")), n.device(n.guarded("b"))
	n.knocksInVain(a, b)
	n.knocksInVain(b, a)
	o := a.examine(b)
	if o.way != "direct" && o.way != "punched" || !strings.Contains(o.path, "["+b.inside+"]") {
		t.Errorf("connected by %s (%s)", o.way, o.path)
	}
	to, from := a.send(b, 8<<20, ""), b.send(a, 8<<20, "")
	fmt.Printf("IPv6 between two firewalls: %s by %s, first byte after %.0f ms, %.0f and %.0f MB/s\n", o.way, o.engine(), o.first, to, from)
}
