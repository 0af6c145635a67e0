package webrtc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/relay"
)

// relayServer is a STUN and TURN server on loopback.
func relayServer(t *testing.T) (*relay.Server, ed25519.PublicKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := relay.Listen(relay.Config{Listen: "127.0.0.1:0", Key: key, Relay: true, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, public
}

// only lets a device tell candidates of one kind alone.
func only(d *device, word string) {
	d.box.Alter = func(_ identity.DeviceID, raw []byte) ([]byte, error) {
		m, err := decode(raw, loopback)
		if err != nil {
			return nil, err
		}
		var left []string
		for _, c := range m.candidates {
			if strings.Contains(c, word) {
				left = append(left, c)
			}
		}
		if m.candidates = left; m.kind == calls.More && len(left) == 0 {
			return nil, nil
		}
		return m.encode()
	}
}

// Where no other candidate leads anywhere a relay does, whose credentials are
// fetched for the call; bytes arrive whole.
//
// fault: F1
func TestOverARelay(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			s, key := relayServer(t)
			var fetched atomic.Int32
			through := func(c *Config) {
				me := c.Identity
				c.Servers = []Server{{
					URL: "turn:" + s.Addr().String() + "?transport=" + transport,
					Credentials: func(ctx context.Context) (string, string, error) {
						fetched.Add(1)
						p, err := relay.Fetch(ctx, s.Addr().String(), key, me)
						return p.Username, p.Password, err
					},
				}}
			}
			x := newExchange()
			a, b := x.newDevice(t, "alice", through), x.newDevice(t, "bob", through)
			only(a, "typ relay")
			only(b, "typ relay")
			c, far := connect(t, a, b)
			if n := s.Allocations(); n != 2 || fetched.Load() != 2 {
				t.Errorf("%d allocations, credentials fetched %d times; want 2 of each", n, fetched.Load())
			}
			sent := make([]byte, 1<<20)
			rand.Read(sent)
			go func() {
				_, _ = c.Write(sent)
				_ = c.(*Conn).CloseWrite()
			}()
			if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// A STUN server adds candidates, and a server that is away, or has no
// credentials to give, costs a call little and does not end it.
//
// fault: F3, C10
func TestServersThatFailAreDoneWithout(t *testing.T) {
	s, _ := relayServer(t)
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) {
		c.Servers = []Server{
			{URL: "stun:" + s.Addr().String()},
			{URL: "turn:127.0.0.1:9", Username: "u", Password: "p"},
			{URL: "turn:" + s.Addr().String(), Username: "nobody", Password: "wrong"},
			{URL: "turn:127.0.0.1:9", Credentials: func(context.Context) (string, string, error) { return "", "", errors.New("none") }},
			{URL: "turn:127.0.0.1:9", Credentials: func(ctx context.Context) (string, string, error) { <-ctx.Done(); return "", "", ctx.Err() }},
		}
	})
	// One server's credentials never come: without a limit neither would the call.
	c, far := connect(t, a, x.newDevice(t, "bob"))
	talk(t, c, far)
	far.Close()
	a.Close()
}
