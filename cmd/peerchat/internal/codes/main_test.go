package codes

import (
	"testing"

	"go.uber.org/goleak"

	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alice invites, bob joins, mallory is neither.
var alice, bob, mallory = identity.DeviceID{1}, identity.DeviceID{2}, identity.DeviceID{3}

var code = Code{Number: 7, Words: "amber-mango"}

// terms are those of alice's invite, seen from one end.
func terms(role Role, peer identity.DeviceID, g *Guard) Terms {
	t := Terms{Role: role, Purpose: "contact", Code: code, Me: alice, Peer: peer, Guard: g}
	if role == Joiner {
		t.Me, t.Peer, t.Guard = bob, peer, nil
	}
	return t
}
