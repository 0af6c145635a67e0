package tlssock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

func TestDialFindsTheDeviceAmongItsAddresses(t *testing.T) {
	alice, bob, carol := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol")
	lb, lc := listen(t, bob), listen(t, carol)
	free := freeAddr(t)
	d := &Dialer{Config: Config{Identity: alice}}
	if err := d.Learn(bob.DeviceID(), free, lc.Addrs()[0].String(), lb.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	var steps []trace.Event
	ctx := trace.With(context.Background(), func(e trace.Event) { steps = append(steps, e) })
	conn, peer, err := d.Dial(ctx, bob.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if peer.Device != bob.DeviceID() || conn.RemoteAddr().String() != lb.Addrs()[0].String() {
		t.Errorf("reached %v at %v", peer, conn.RemoteAddr())
	}
	if len(steps) != 1 || steps[0].Step != trace.Secured || !strings.HasPrefix(steps[0].Detail, "tcp 127.0.0.1:") {
		t.Errorf("milestones %v", steps)
	}
	if conn, peer, err := lb.Accept(ctx); err != nil || peer.Device != alice.DeviceID() {
		t.Errorf("the callee sees %v, %v", peer, err)
	} else {
		conn.Close()
	}
}

// fault: D1
func TestDialErrorListsEachAddressAndItsCause(t *testing.T) {
	alice, bob, carol := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol")
	lc := listen(t, carol)
	wrong, closed := lc.Addrs()[0].String(), freeAddr(t)
	d := &Dialer{Config: Config{Identity: alice}}
	if err := d.Learn(bob.DeviceID(), wrong, closed); err != nil {
		t.Fatal(err)
	}
	_, _, err := d.Dial(context.Background(), bob.DeviceID())
	if _, ok := errors.AsType[*WrongDeviceError](err); !ok || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v: want a WrongDeviceError and ECONNREFUSED in it", err)
	}
	for _, want := range []string{bob.DeviceID().Short(), wrong, closed, carol.DeviceID().String(), "refused"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if _, _, err := d.DialAddr(context.Background(), closed, bob.DeviceID()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("DialAddr: %v", err)
	}
	if _, _, err := d.Dial(context.Background(), carol.DeviceID()); !errors.Is(err, ErrNoAddress) {
		t.Errorf("Dial without an address: %v", err)
	}
}

func TestDialAddrNeedsNoLearning(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	l := listen(t, bob)
	d := &Dialer{Config: Config{Identity: alice}}
	conn, peer, err := d.DialAddr(context.Background(), l.Addrs()[0].String(), bob.DeviceID())
	if err != nil || peer.Device != bob.DeviceID() {
		t.Fatalf("%v, %v", peer, err)
	}
	conn.Close()
	if _, _, err := d.DialAddr(context.Background(), "nonsense", bob.DeviceID()); err == nil {
		t.Error("a malformed address was taken")
	}
}

// Addresses start a quarter of a second apart, or at once after a failure, and
// nothing runs on when the race is over.
func TestRaceStaggersItsAttempts(t *testing.T) {
	refused := errors.New("refused")
	type plan struct {
		after time.Duration // until the attempt ends; 0 is never
		err   error
	}
	for name, tt := range map[string]struct {
		plans  []plan
		starts []time.Duration
		winner string
		ends   time.Duration
	}{
		"first wins":           {[]plan{{10 * time.Millisecond, nil}, {0, nil}}, []time.Duration{0}, "a0", 10 * time.Millisecond},
		"failures are prompt":  {[]plan{{time.Millisecond, refused}, {time.Millisecond, refused}, {time.Millisecond, nil}}, []time.Duration{0, time.Millisecond, 2 * time.Millisecond}, "a2", 3 * time.Millisecond},
		"stuck first":          {[]plan{{0, nil}, {time.Millisecond, nil}}, []time.Duration{0, stagger}, "a1", stagger + time.Millisecond},
		"all fail":             {[]plan{{time.Millisecond, refused}, {time.Millisecond, refused}}, []time.Duration{0, time.Millisecond}, "", 2 * time.Millisecond},
		"all stuck until done": {[]plan{{0, nil}, {0, nil}}, []time.Duration{0, stagger}, "", time.Minute},
		"late loser is closed": {[]plan{{stagger + 2*time.Millisecond, nil}, {2 * time.Millisecond, nil}}, []time.Duration{0, stagger}, "a?", stagger + 2*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begin, running := time.Now(), new(atomic.Int32)
				made, returned := map[string]*Conn{}, map[string]bool{}
				var mu sync.Mutex
				var starts []time.Duration
				var addrs []string
				for i := range tt.plans {
					addrs = append(addrs, fmt.Sprintf("a%d", i))
					c, s := net.Pipe()
					defer s.Close()
					under := &carrier{Conn: c}
					made[addrs[i]] = &Conn{Conn: tls.Client(under, &tls.Config{InsecureSkipVerify: true}), carrier: under}
				}
				conn, err := race(ctx, addrs, func(ctx context.Context, addr string) (*Conn, error) {
					mu.Lock()
					starts = append(starts, time.Since(begin))
					mu.Unlock()
					running.Add(1)
					defer running.Add(-1)
					p := tt.plans[slices.Index(addrs, addr)]
					var timeout <-chan time.Time
					if p.after > 0 {
						timeout = time.After(p.after)
					}
					select {
					case <-timeout:
						mu.Lock()
						defer mu.Unlock()
						returned[addr] = p.err == nil
						return made[addr], p.err
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				if d := time.Since(begin); d != tt.ends || running.Load() != 0 {
					t.Errorf("ended after %s, want %s; %d attempts still running", d, tt.ends, running.Load())
				}
				if !slices.Equal(starts, tt.starts) {
					t.Errorf("started at %v, want %v", starts, tt.starts)
				}
				if won := tt.winner != ""; won != (err == nil) || (len(tt.winner) == 2 && tt.winner != "a?" && conn != made[tt.winner]) {
					t.Errorf("winner %v, %v; want %q", conn, err, tt.winner)
				}
				for addr, c := range made {
					lost := returned[addr] && c != conn
					if closed := c.closed.Load(); closed != lost {
						t.Errorf("%s: closed %v, want %v", addr, closed, lost)
					}
				}
			})
		})
	}
}

func TestCancelledDialEndsAtOnce(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		conn, err := mute.Accept()
		cancel()
		if err == nil {
			defer conn.Close()
			conn.Read(make([]byte, 1<<10))
		}
	}()
	d := &Dialer{Config: Config{Identity: alice}}
	if _, _, err := d.DialAddr(ctx, mute.Addr().String(), bob.DeviceID()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestBookIsBounded(t *testing.T) {
	var b book
	id := func(i int) identity.DeviceID { return identity.DeviceID{byte(i), byte(i >> 8), 1} }
	b.add(id(0), []string{"a:1", "b:1"})
	b.add(id(0), []string{"c:1", "a:1"})
	if got := b.get(id(0)); !slices.Equal(got, []string{"c:1", "a:1", "b:1"}) {
		t.Errorf("merged: %v", got)
	}
	b.add(id(0), nil)
	for i := range 20 {
		b.add(id(0), []string{fmt.Sprintf("h%d:1", i)})
	}
	if got := b.get(id(0)); len(got) != maxBookAddrs || got[0] != "h19:1" {
		t.Errorf("newest %d: %v", maxBookAddrs, got)
	}
	for i := range maxBookPeers + 10 {
		b.add(id(i), []string{"a:1"})
	}
	if n := b.peers.Len(); n != maxBookPeers {
		t.Errorf("%d devices are remembered, want %d", n, maxBookPeers)
	}
}

func TestAddressesAreChecked(t *testing.T) {
	for _, ok := range []string{"127.0.0.1:1", "[::1]:65535", "host.example:4100", "[fe80::1%eth0]:1"} {
		if err := checkAddr(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ":1", "host", "host:", "host:0", "host:65536", "host:http", "host:-1", "::1:80", "a:1:2", strings.Repeat("x", 300) + ":1"} {
		if checkAddr(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	d := &Dialer{}
	if err := d.Learn(identity.DeviceID{1}, "ok:1", "bad"); err == nil || d.book.get(identity.DeviceID{1}) != nil {
		t.Errorf("Learn with a malformed address: %v, kept %v", err, d.book.get(identity.DeviceID{1}))
	}
}

func listen(t testing.TB, id *identity.Identity) *Listener {
	t.Helper()
	l, err := Listen(context.Background(), Config{Identity: id}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
