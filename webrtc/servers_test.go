package webrtc

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// relayServer is a STUN and TURN server on loopback, over UDP and TCP, and its
// address. Its credentials are "user" and "password".
func relayServer(t *testing.T) (*turn.Server, string) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	err := errors.New("not tried")
	for tries := 0; err != nil; tries++ { // TCP's port may be taken for UDP
		if tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err == nil {
			if udp, err = net.ListenPacket("udp4", tcp.Addr().String()); err != nil {
				tcp.Close()
			}
		}
		if err != nil && tries == 16 {
			t.Fatal(err)
		}
	}
	at := tcp.Addr().String()
	ports := &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel = logging.LogLevelDisabled
	s, err := turn.NewServer(turn.ServerConfig{
		Realm: "test", LoggerFactory: quiet,
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: udp, RelayAddressGenerator: ports}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: tcp, RelayAddressGenerator: ports}},
		AuthHandler: func(r *turn.RequestAttributes) (string, []byte, bool) {
			return r.Username, turn.GenerateAuthKey("user", r.Realm, "password"), r.Username == "user"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, at
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
			s, at := relayServer(t)
			var fetched atomic.Int32
			through := func(c *Config) {
				c.Servers = []Server{{
					URL: "turn:" + at + "?transport=" + transport,
					Credentials: func(context.Context) (string, string, error) {
						fetched.Add(1)
						return "user", "password", nil
					},
				}}
			}
			x := newExchange()
			a, b := x.newDevice(t, "alice", through), x.newDevice(t, "bob", through)
			only(a, "typ relay")
			only(b, "typ relay")
			c, far := connect(t, a, b)
			if n := s.AllocationCount(); n != 2 || fetched.Load() != 2 {
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
	_, at := relayServer(t)
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) {
		c.Servers = []Server{
			{URL: "stun:" + at},
			{URL: "turn:127.0.0.1:9", Username: "u", Password: "p"},
			{URL: "turn:" + at, Username: "nobody", Password: "wrong"},
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
