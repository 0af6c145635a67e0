//go:build linux

package nat

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// lab is a public network: a bridge in a namespace of its own.
type lab struct {
	t      testing.TB
	prefix string
	hosts  atomic.Int32 // on the public network, for their addresses
}

// kind is what stands between a host and the public network.
type kind int

const (
	public kind = iota
	coneDrop
	coneReject
	symmetric
	coneNoUDP
	udpBlocked
	kinds
)

func (k kind) String() string {
	return [...]string{"public", "cone, drop", "cone, reject", "symmetric", "cone, no UDP", "UDP blocked"}[k]
}

// need skips a test, loudly, where namespaces cannot be made.
func need(t testing.TB) {
	t.Helper()
	skip := func(what string) {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED: %s: %s (apt-get install iproute2 nftables, and run as root)\n\n", t.Name(), what)
		t.Skip(what)
	}
	if os.Geteuid() != 0 {
		skip("only root can make network namespaces")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(tool + " is not installed")
		}
	}
	probe := fmt.Sprintf("pln%dp", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput(); err != nil {
		skip("network namespaces are not allowed here: " + strings.TrimSpace(string(out)))
	}
	defer exec.Command("ip", "netns", "del", probe).Run()
	nft := exec.Command("ip", "netns", "exec", probe, "nft", "-f", "-")
	nft.Stdin = strings.NewReader("table ip probe { chain c { type nat hook postrouting priority 100; masquerade; }; }")
	if out, err := nft.CombinedOutput(); err != nil {
		skip("nftables cannot masquerade here: " + strings.TrimSpace(string(out)))
	}
}

var labs atomic.Int32

func newLab(t testing.TB) *lab {
	t.Helper()
	need(t)
	l := &lab{t: t, prefix: fmt.Sprintf("pln%d-%d", os.Getpid(), labs.Add(1))}
	l.hosts.Store(9)
	l.namespace("pub")
	l.ip("-n", l.ns("pub"), "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.ns("pub"), "link", "set", "br0", "up")
	return l
}

func (l *lab) ns(name string) string { return l.prefix + name }

func (l *lab) run(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (l *lab) ip(args ...string) { l.t.Helper(); l.run("ip", args...) }

// namespace makes one, for as long as the lab's test.
func (l *lab) namespace(name string) {
	l.t.Helper()
	l.ip("netns", "add", l.ns(name))
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", l.ns(name)).Run() })
	l.ip("-n", l.ns(name), "link", "set", "lo", "up")
}

// join gives a namespace an address on the public network.
func (l *lab) join(name string) (addr string) {
	l.t.Helper()
	n := l.hosts.Add(1)
	addr = fmt.Sprintf("203.0.113.%d", n)
	port := fmt.Sprintf("p%d", n)
	l.ip("link", "add", "pub", "netns", l.ns(name), "type", "veth", "peer", "name", port, "netns", l.ns("pub"))
	l.ip("-n", l.ns("pub"), "link", "set", port, "master", "br0", "up")
	l.ip("-n", l.ns(name), "addr", "add", addr+"/24", "dev", "pub")
	l.ip("-n", l.ns(name), "link", "set", "pub", "up")
	return addr
}

// place is a host with whatever stands before it.
type place struct {
	l       *lab
	name    string
	kind    kind
	inside  string // its own address
	gateway string // of its router on the public network, where that matters
	router  string // the router's namespace; empty without one
	link    *link  // between the two, where it is one of ours
}

// host makes a host, behind a router if its kind has one.
func (l *lab) host(name string, k kind) *place {
	l.t.Helper()
	l.namespace(name)
	p := &place{l: l, name: name, kind: k}
	if k == public {
		p.inside = l.join(name)
		return p
	}
	p.router = name + "r"
	l.namespace(p.router)
	l.join(p.router)
	l.ip("link", "add", "eth0", "netns", l.ns(name), "type", "veth", "peer", "name", "lan", "netns", l.ns(p.router))
	net := l.hosts.Load()
	p.inside = fmt.Sprintf("10.%d.0.2", net)
	p.wire("eth0", "lan", fmt.Sprintf("10.%d.0.1", net), p.inside)
	p.masquerade(k)
	return p
}

// wire gives both ends of the link between host and router their addresses.
func (p *place) wire(outer, inner, gateway, own string) {
	p.l.t.Helper()
	l, host, router := p.l, p.l.ns(p.name), p.l.ns(p.router)
	l.ip("-n", router, "addr", "add", gateway+"/24", "dev", inner)
	l.ip("-n", router, "link", "set", inner, "up")
	l.ip("-n", host, "addr", "add", own+"/24", "dev", outer)
	l.ip("-n", host, "link", "set", outer, "up")
	l.ip("-n", host, "route", "replace", "default", "via", gateway)
	l.run("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
}

// masquerade makes the router a NAT.
func (p *place) masquerade(k kind) {
	p.l.t.Helper()
	p.nft(rules(k))
}

// nft has the router do what a script of nftables says, and returns its output.
func (p *place) nft(script string) string {
	p.l.t.Helper()
	nft := exec.Command("ip", "netns", "exec", p.l.ns(p.router), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(script)
	out, err := nft.CombinedOutput()
	if err != nil {
		p.l.t.Fatalf("nft: %v\n%s", err, out)
	}
	return string(out)
}

// dropped is how many packets the counter in a table of the router's has seen.
func (p *place) dropped(table string) (packets int) {
	p.l.t.Helper()
	said := p.nft("list table " + table)
	_, rest, _ := strings.Cut(said, "counter packets ")
	if _, err := fmt.Sscan(rest, &packets); err != nil {
		p.l.t.Fatalf("no counter: %v\n%s", err, said)
	}
	return packets
}

// rules are those of a router. Those of an earlier kind go.
func rules(k kind) string {
	masquerade, unasked, blocked := "masquerade", "drop", ""
	switch k {
	case coneReject:
		unasked = "meta l4proto tcp reject with tcp reset\n    iifname \"pub\" reject"
	case symmetric:
		masquerade = "masquerade random,fully-random"
	case coneNoUDP:
		blocked = "meta l4proto udp drop"
	case udpBlocked:
		masquerade, blocked = "masquerade random,fully-random", "meta l4proto udp drop"
	}
	return fmt.Sprintf(`table ip nat
delete table ip nat
table ip nat {
  chain leaving { type nat hook postrouting priority 100; oifname "pub" %s; }
  chain passing { type filter hook forward priority 0; policy drop; %s
    ct state established,related accept
    iifname != "pub" oifname "pub" accept
  }
  chain arriving { type filter hook input priority 0; policy accept; ct state established,related accept
    iifname "pub" %s
  }
}
`, masquerade, blocked, unasked)
}
