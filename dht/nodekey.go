package dht

import (
	"crypto/ed25519"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// NodeKey returns the public key that a node's name in its multiaddress (after
// "/p2p/", 12D3Koo…) stands for. The names of keys other than Ed25519 are errors.
func NodeKey(name string) (ed25519.PublicKey, error) {
	id, err := peer.Decode(name)
	if err != nil {
		return nil, fmt.Errorf("dht: node name %.80q: %w", name, err)
	}
	key, err := id.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("dht: node name %.80q: %w", name, err)
	}
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("dht: node name %.80q is not that of an Ed25519 key", name)
	}
	return raw, nil
}
