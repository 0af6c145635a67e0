package ice

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/turn/v5"

	"peerlink/internal/pause"
)

// turnServer is a STUN and TURN server on loopback, over UDP and TCP. Its
// credentials are "user" and "password".
type turnServer struct {
	*turn.Server
	turn.RelayAddressGenerator
	tcp     net.Listener
	refuses atomic.Int32 // the code with which it refuses allocations; 0: it does not

	mu    sync.Mutex
	conns []net.Conn // that it has accepted
}

// relayServer runs a server; without relays it only reflects.
func relayServer(t testing.TB, relays bool) *turnServer {
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
	s := &turnServer{tcp: tcp, RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}}
	cfg := turn.ServerConfig{
		Realm: "test", LoggerFactory: silentPion(),
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: udp, RelayAddressGenerator: s}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: ending{tcp, s}, RelayAddressGenerator: s}},
		QuotaHandler:      func(string, string, net.Addr) bool { return s.refuses.Load() != allocationQuota },
	}
	if relays {
		cfg.AuthHandler = func(r *turn.RequestAttributes) (string, []byte, bool) {
			return r.Username, turn.GenerateAuthKey("user", r.Realm, "password"), r.Username == "user"
		}
	}
	if s.Server, err = turn.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (s *turnServer) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	if s.refuses.Load() == insufficientCapacity {
		return nil, nil, errors.New("full")
	}
	return s.RelayAddressGenerator.AllocatePacketConn(c)
}

// Addr is where it is, over UDP and TCP.
func (s *turnServer) Addr() netip.AddrPort { return s.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Close ends the server with its connections, as when its process ends.
func (s *turnServer) Close() {
	_ = s.Server.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// ending is a listener whose connections are remembered.
type ending struct {
	net.Listener
	s *turnServer
}

// Accept implements net.Listener.
func (l ending) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		l.s.conns = append(l.s.conns, c)
	}
	return c, err
}

// through has a device use a server, over "udp" or "tcp".
func through(_ testing.TB, s *turnServer, transport string) func(*Config) {
	return func(c *Config) {
		c.Servers = append(c.Servers, Server{
			URL:         "turn:" + s.Addr().String() + "?transport=" + transport,
			Credentials: func(context.Context) (string, string, error) { return "user", "password", nil },
		})
	}
}

// A relay's no is in the error and in the report, in words that help.
// case: S25
// fault: F3
func TestARelaysNoIsTold(t *testing.T) {
	for code, want := range map[int32]string{
		insufficientCapacity: "the relay is full: try again later, or use another one",
		allocationQuota:      "this device or its network has as many places there as it may have",
	} {
		s := relayServer(t, true)
		s.refuses.Store(code)
		a, b := newApart(t, through(t, s, "udp"), func(*Config) {})
		var report Report
		ctx, end := context.WithCancelCause(WithReport(limit(t, time.Minute), func(r Report) { report = r }))
		go func() {
			defer end(context.DeadlineExceeded)
			for refused := false; !refused && ctx.Err() == nil; {
				a.mu.Lock()
				_, refused = a.silent[engineUDP+" "+relaySource]
				a.mu.Unlock()
				_ = pause.For(ctx, time.Millisecond)
			}
		}()
		conn, _, err := a.Dial(ctx, b.id.DeviceID())
		if err == nil {
			conn.Close()
			t.Fatal("connected without a way")
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%d: the error is %v", code, err)
		}
		if told := strings.Join(report.Silent, "\n"); !strings.Contains(told, want) {
			t.Errorf("%d: the report has %q", code, told)
		}
	}
}
