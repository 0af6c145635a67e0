package peerlinktest

import (
	"context"
	"testing"

	"peerlink"
	"peerlink/carriertest"
	"peerlink/identity"
)

// The carrier in memory keeps the rules of carriers.
func TestInMemoryIsACarrier(t *testing.T) {
	f := New(t).fabric
	carriertest.Run(t, carriertest.Carrier{
		Name: "memory", OneProcess: true,
		Make: func(_ context.Context, _ *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
			p := newPort("memory", &Peer{Name: id.Name(), Identity: id, Trust: trust, f: f})
			return &carriertest.Endpoint{Dialer: p, Listeners: []peerlink.Listener{p}}, nil
		},
	})
}
