package webrtc

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
)

// Where UDP candidates lead nowhere, ICE over TCP carries the stream.
func TestOverTCP(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) { c.ListenTCP = "127.0.0.1:0" })
	b := x.newDevice(t, "bob", func(c *Config) { c.ListenTCP = "127.0.0.1:0" })
	for _, d := range []*device{a, b} {
		d.box.alter = func(_ identity.DeviceID, raw []byte) ([]byte, error) {
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
	c, s := connect(t, a, b)
	talk(t, c, s)
	if p := c.(*Conn).Path(); !strings.Contains(p, "tcp") {
		t.Errorf("path %q", p)
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
	box := newExchange().join(id)
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
	ctx, cancel := context.WithCancel(limit(t, 20*time.Second))
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
