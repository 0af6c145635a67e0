package ice

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/tlssock"
)

// A device that is reached nowhere but at its open port of TLS is reached there,
// by somebody who knows only its id.
// fault: F1
func TestAnOpenPortOfTLSIsReachedByTheDevicesId(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a")
	id := newIdentity(t, "b")
	ln, err := tlssock.Listen(t.Context(), tlssock.Config{Identity: id}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := netip.MustParseAddrPort(ln.Addrs()[0].String())
	box := x.Join(id)
	b, err := New(Config{
		Identity: id, Signaller: box, Loopback: true, Addresses: onLoopback,
		Direct: func() []netip.AddrPort { return []netip.AddrPort{at} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// Only the open port is reached, from either side.
	only := rewrite(func(m *message) {
		var open []candidate
		for _, c := range m.tcpCandidates() {
			if c.typ == directCandidate {
				open = append(open, c)
			}
		}
		unreachable(m)
		if m.tcp != nil {
			m.tcp.candidates = append(m.tcp.candidates, open...)
		}
	})
	a.box.Alter, box.Alter = only, only
	type result struct {
		conn net.Conn
		peer identity.Peer
		err  error
	}
	ctx := limit(t, 20*time.Second)
	acceptc := make(chan result, 1)
	go func() {
		conn, peer, err := ln.Accept(ctx)
		acceptc <- result{conn, peer, err}
	}()
	conn, peer, err := a.Dial(ctx, id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there := <-acceptc
	if there.err != nil {
		t.Fatal(there.err)
	}
	defer there.conn.Close()
	if peer.Device != id.DeviceID() || there.peer.Device != a.id.DeviceID() {
		t.Errorf("%s and %s have met", peer.Device.Short(), there.peer.Device.Short())
	}
	if p := pathOf(conn); !strings.HasPrefix(p, "tcp direct ") || !strings.Contains(p, at.String()) {
		t.Errorf("path %q", p)
	}
	exchangeBytes(t, conn, there.conn, 1<<16)
	waitFor(t, (&device{Transport: b}).idle) // long before its time-out
	if left := time.Until(deadlineOf(ctx)); left < 20*time.Second-defaultTimeout {
		t.Errorf("the device waited on, %v are left", left)
	}
}

func deadlineOf(ctx context.Context) time.Time {
	end, _ := ctx.Deadline()
	return end
}

// What is told of open ports: no more than four, none that must not be dialled,
// and every address of this machine for one that is open on all.
// fault: E8
func TestDirectCandidatesAreFiltered(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	for listen, want := range map[string]string{
		"192.0.2.9:4100":    "direct 192.0.2.9:4100",
		"0.0.0.0:4100":      "direct 192.0.2.7:4100",
		"[::]:4100":         "direct 192.0.2.7:4100 direct [2001:db8::7]:4100",
		"127.0.0.1:4100":    "",
		"169.254.1.2:4100":  "",
		"239.1.2.3:4100":    "",
		"[fe80::1]:4100":    "",
		"192.0.2.9:0":       "",
		"[2001:db8::9]:443": "direct [2001:db8::9]:443",
	} {
		tr := &Transport{cfg: Config{Direct: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(listen)} }}}
		var got []string
		for _, c := range tr.directCandidates(own) {
			got = append(got, c.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: told are %q, want %q", listen, got, want)
		}
	}
	many := &Transport{cfg: Config{Direct: func() (out []netip.AddrPort) {
		for port := range uint16(100) {
			out = append(out, netip.AddrPortFrom(own[1], 4000+port))
		}
		return out
	}}}
	if got := many.directCandidates(own); len(got) != maxDirect {
		t.Errorf("%d are told", len(got))
	}
}
