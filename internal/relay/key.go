package relay

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// A node's name in a multiaddress (12D3Koo…) is base58 of a multihash that
// holds the key itself: identity (00), 36 bytes (24), and a protobuf of type
// Ed25519 (08 01) and 32 bytes of key (12 20).
const (
	base58       = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	nodePrefix   = "002408011220"
	nodeNameLen  = 52
	nodePrefixes = len(nodePrefix) / 2
)

// NodeKey returns the public key that a node's name in its multiaddress (after
// "/p2p/") stands for.
func NodeKey(name string) (ed25519.PublicKey, error) {
	if len(name) != nodeNameLen {
		return nil, fmt.Errorf("relay: node name %.80q: want %d characters, 12D3Koo…", name, nodeNameLen)
	}
	// The leading 00 is left out of the number, and is a 1 in base58.
	n, base := new(big.Int), big.NewInt(int64(len(base58)))
	for _, c := range []byte(name) {
		i := strings.IndexByte(base58, c)
		if i < 0 {
			return nil, fmt.Errorf("relay: node name %q: %q is not base58", name, c)
		}
		n.Add(n.Mul(n, base), big.NewInt(int64(i)))
	}
	b := make([]byte, nodePrefixes+ed25519.PublicKeySize)
	if n.BitLen() > 8*len(b) {
		return nil, errors.New("relay: node name is too long for a key")
	}
	n.FillBytes(b)
	if hex.EncodeToString(b[:nodePrefixes]) != nodePrefix {
		return nil, fmt.Errorf("relay: node name %q is not that of an Ed25519 key", name)
	}
	return ed25519.PublicKey(b[nodePrefixes:]), nil
}
