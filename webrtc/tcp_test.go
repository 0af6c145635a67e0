package webrtc

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
)

// overTCP connects two devices whose UDP candidates lead nowhere.
func overTCP(t *testing.T) (a, b *device, c, s *Conn) {
	t.Helper()
	x := newExchange()
	a = x.newDevice(t, "alice", func(c *Config) { c.ListenTCP = "127.0.0.1:0" })
	a.linger = 0 // there is nobody to deliver to
	b = x.newDevice(t, "bob", func(c *Config) { c.ListenTCP = "127.0.0.1:0" })
	for _, d := range []*device{a, b} {
		d.box.Alter = func(_ identity.DeviceID, raw []byte) ([]byte, error) {
			m, err := decode(raw, loopback)
			if err != nil {
				return nil, err
			}
			var left []string
			for _, c := range m.candidates {
				if strings.Contains(c, " tcp ") {
					left = append(left, c)
				}
			}
			m.candidates = left
			return m.encode()
		}
	}
	near, far := connect(t, a, b)
	return a, b, near.(*Conn), far.(*Conn)
}

// Where UDP candidates lead nowhere, ICE over TCP carries the stream.
func TestOverTCP(t *testing.T) {
	_, _, c, s := overTCP(t)
	talk(t, c, s)
	if p := c.Path(); p.Over != "tcp" {
		t.Errorf("path %q", p)
	}
}

// A peer whose TCP connection is gone cannot be told of the end, and pion waits
// for that for ever; the stream and its Transport end nevertheless.
//
// fault: C10
func TestCloseAfterTheTCPPeerHasGone(t *testing.T) {
	a, _, c, s := overTCP(t)
	if err := s.owner.dtls.ICETransport().Stop(); err != nil {
		t.Fatal(err)
	}
	for range 64 { // until SCTP has seen a write fail; then they only wait
		if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	donec := make(chan error, 1)
	go func() { donec <- a.Close() }()
	select {
	case err := <-donec:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
}

// A port range and an address are kept to.
func TestPortRange(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) { c.MinPort, c.MaxPort = 47000, 47019 })
	c, s := connect(t, a, x.newDevice(t, "bob"))
	talk(t, c, s)
	if p := c.LocalAddr().(*net.UDPAddr).Port; p < 47000 || p > 47019 {
		t.Errorf("port %d", p)
	}
}

func TestConfigIsChecked(t *testing.T) {
	id := newIdentity(t, "alice")
	box := newExchange().Join(id)
	for part, c := range map[string]Config{
		"Identity":   {Signaller: box},
		"Signaller":  {Identity: id},
		"MaxMessage": {Identity: id, Signaller: box, MaxMessage: 1 << 20},
		"Label":      {Identity: id, Signaller: box, Label: strings.Repeat("x", maxLabel+1)},
		"Servers":    {Identity: id, Signaller: box, Servers: make([]Server, maxServers+1)},
		"MinPort":    {Identity: id, Signaller: box, MinPort: 10, MaxPort: 5},
		"ListenTCP":  {Identity: id, Signaller: box, ListenTCP: "127.0.0.1:-1"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

// A caller with another label than the callee's gets no stream of another kind.
func TestLabelsMustFit(t *testing.T) {
	x := newExchange()
	short := func(c *Config) { c.Timeout = 2 * time.Second }
	a := x.newDevice(t, "alice", short, func(c *Config) { c.Label = "one" })
	b := x.newDevice(t, "bob", short)
	ctx, cancel := context.WithCancel(limit(t, patience))
	in := b.acceptLater(ctx)
	if _, _, err := a.Dial(ctx, b.id.DeviceID()); err == nil {
		t.Error("dialled")
	}
	b.idle(t)
	cancel()
	if r := <-in; r.err == nil {
		t.Error("accepted")
	}
}
