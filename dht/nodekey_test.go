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
	for at, host := range map[string]string{"/ip4/192.0.2.7/tcp/1": "192.0.2.7", "/ip6/2001:db8::1/tcp/1": "2001:db8::1", "/dns4/a.example/tcp/1": "a.example"} {
		got, key, err := NodeAt(at + "/p2p/" + name)
		if err != nil || got != host || !bytes.Equal(key, want) {
			t.Errorf("%q with key %x, %v; want %q with %x", got, key, err, host, want)
		}
	}
	for _, bad := range []string{"", name, "/p2p/" + name, "/ip4/192.0.2.7/tcp/1"} {
		if _, _, err := NodeAt(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"", "12D3", strings.Repeat("z", 52), strings.Repeat("1", 52), strings.Repeat("0", 52), name[:51] + "l"} {
		if _, _, err := NodeAt("/ip4/192.0.2.7/tcp/1/p2p/" + bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzNodeAt(f *testing.F) {
	f.Add("/ip4/192.0.2.7/tcp/1/p2p/12D3KooWSCufgHzV4fCwRijfH2k3abrpAJxTKxEvN1FDuRXA2U9x")
	f.Fuzz(func(t *testing.T, s string) {
		if host, k, err := NodeAt(s); err == nil && (host == "" || len(k) != ed25519.PublicKeySize) {
			t.Errorf("%q with a key of %d bytes", host, len(k))
		}
	})
}
