package dht

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// fault: J3
func TestPrivateNetworkIsClosedToOthers(t *testing.T) {
	key := []byte(strings.Repeat("k", networkKeyLen))
	node := start(t, Config{Mode: Server, NetworkKey: key})
	cfg := func(name string, key []byte) Config {
		return Config{Identity: newIdentity(t, name), Bootstrap: node.Addrs(), NetworkKey: key}
	}
	alice, bob := start(t, cfg("alice", key)), start(t, cfg("bob", key))
	ready(t, alice)
	ready(t, bob)
	exchange(t, alice, bob, "inside")
	for name, key := range map[string][]byte{"no key": nil, "another key": []byte(strings.Repeat("x", networkKeyLen))} {
		eve := start(t, cfg("eve", key))
		ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
		if err := eve.Ready(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if h := eve.Health(); h.Connected != 0 {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if _, err := Start(testContext(t), cfg("alice", key[1:])); err == nil || !strings.Contains(err.Error(), "NetworkKey has 31 bytes") {
		t.Errorf("%v", err)
	}
}
