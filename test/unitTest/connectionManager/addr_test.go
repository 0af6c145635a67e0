package connectionmanager_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
	"peerlink/tlssock"
)

// Direct TCP: links to addresses, as many as asked for, by number and by name.
func TestConnectAddrOverTCP(t *testing.T) {
	n := peerlinktest.New(t, loopback.TCP())
	alice, there := ofPeer(n.Peer("alice")), n.Peer("bob")
	bob, addr := ofPeer(there), there.Config.Listeners[0].(*tlssock.Listener).Addrs()[0].String()
	bob.echoing(t, "*")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{addr, addr, net.JoinHostPort("localhost", port)} {
		id, err := alice.ConnectAddr(background, a, bob.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://"+a, peerlink.ConnectOptions{Link: id})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "hello")
	}
	for _, c := range alice.Connections() {
		if c.Direction != peerlink.Outbound || c.Carrier != "tcp" || !strings.HasSuffix(c.RemoteAddr.String(), ":"+port) {
			t.Errorf("alice: %+v", c)
		}
	}
	for _, c := range bob.Connections() {
		if c.Direction != peerlink.Inbound || !strings.HasSuffix(c.LocalAddr.String(), ":"+port) {
			t.Errorf("bob: %+v", c)
		}
	}
	if a, b := len(alice.Connections()), len(bob.Connections()); a != 3 || b != 3 {
		t.Errorf("%d and %d links, want 3", a, b)
	}
}

// fault: D1
func TestConnectAddrTellsEachAddressAndItsCause(t *testing.T) {
	n := peerlinktest.New(t, loopback.TCP())
	alice, there := ofPeer(n.Peer("alice")), n.Peer("bob")
	bob, addr := ofPeer(there), there.Config.Listeners[0].(*tlssock.Listener).Addrs()[0].String()
	carol := newIdentity(t, "carol")
	_, err := alice.ConnectAddr(background, addr, carol.DeviceID())
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), bob.id.DeviceID().String()) {
		t.Errorf("another device at the address: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut := l.Addr().String()
	_ = l.Close()
	if _, err := alice.ConnectAddr(background, shut, bob.id.DeviceID()); err == nil || !strings.Contains(err.Error(), shut) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := alice.ConnectAddr(background, "no.such.host.invalid:1", bob.id.DeviceID()); err == nil || !strings.Contains(err.Error(), "look up the name") {
		t.Errorf("an unknown name: %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
	defer cancel()
	if _, err := alice.ConnectAddr(ctx, silent.Addr().String(), bob.id.DeviceID()); err == nil || !strings.Contains(err.Error(), silent.Addr().String()) || !strings.Contains(err.Error(), "deadline") { // fault: D7
		t.Errorf("nobody answers: %v", err)
	}
	if len(bob.Connections()) != 0 {
		t.Error("a link was left")
	}
}
