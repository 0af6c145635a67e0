package dht

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
)

func TestANodesNameIsItsKey(t *testing.T) {
	// Made with go-libp2p from the seed 00 01 … 1f.
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	want := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	const name = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
	got, err := NodeKey(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("key %x, %v; want %x", got, err, want)
	}
	for _, bad := range []string{"", "12D3", strings.Repeat("z", 52), strings.Repeat("1", 52), strings.Repeat("0", 52), name[:51] + "l"} {
		if _, err := NodeKey(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzNodeKey(f *testing.F) {
	f.Add("12D3KooWSCufgHzV4fCwRijfH2k3abrpAJxTKxEvN1FDuRXA2U9x")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := NodeKey(s); err == nil && len(k) != ed25519.PublicKeySize {
			t.Errorf("key of %d bytes", len(k))
		}
	})
}
