package dht

import (
	"crypto/ed25519"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// NodeAt returns a node's host, which is an address or a DNS name, and its public
// key out of the node's multiaddress, which ends in /p2p/12D3Koo…. An address
// without either is an error, and so is a key that is not Ed25519.
func NodeAt(multiaddr string) (host string, key ed25519.PublicKey, err error) {
	node, err := peer.AddrInfoFromString(multiaddr)
	if err != nil {
		return "", nil, fmt.Errorf("dht: node %.200q: %w", multiaddr, err)
	}
	for _, a := range node.Addrs { // one at most
		for _, part := range a {
			switch part.Code() {
			case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
				host = part.Value()
			}
		}
	}
	pub, err := node.ID.ExtractPublicKey()
	if err != nil {
		return "", nil, fmt.Errorf("dht: node %.200q: %w", multiaddr, err)
	}
	raw, err := pub.Raw()
	if err != nil || pub.Type() != crypto.Ed25519 || host == "" {
		return "", nil, fmt.Errorf("dht: node %.200q has no host, or no Ed25519 key", multiaddr)
	}
	return host, raw, nil
}
