package webrtc

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestConfigIsChecked(t *testing.T) {
	id := newIdentity(t, "alice")
	box := newExchange().Join(id)
	for part, c := range map[string]Config{
		"Identity":  {Signaller: box},
		"Signaller": {Identity: id},
		"Servers":   {Identity: id, Signaller: box, Servers: make([]Server, maxServers+1)},
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
	a := x.newDevice(t, "alice", short)
	a.label = "one"
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
