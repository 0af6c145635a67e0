package e2epeer

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"os"

	"peerlink/cmd/peerchat/internal/turnserver"
	"peerlink/identity"
	"peerlink/internal/relay"
)

// serveRelay runs a node's STUN and TURN server on loopback until the input
// ends, and prints its URL and a pass. The command “allocations” counts them.
func serveRelay(ctx context.Context, me *identity.Identity) error {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	s, err := turnserver.Listen(turnserver.Config{Listen: "127.0.0.1:0", Key: key, Relay: true, Private: true})
	if err != nil {
		return err
	}
	defer s.Close()
	p, err := relay.Fetch(ctx, s.Addr().String(), public, me)
	if err != nil {
		return err
	}
	report(map[string]any{"step": "ready", "ok": true, "turn": "turn:" + s.Addr().String() + "?transport=udp", "username": p.Username, "credential": p.Password})
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "allocations" {
			report(map[string]any{"step": "allocations", "count": s.Allocations()})
		}
	}
	return nil
}
