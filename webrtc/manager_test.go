package webrtc_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"peerlink"
	"peerlink/identity"
	"peerlink/webrtc"
	"peerlink/webrtc/switchboard"
)

var (
	_ peerlink.Dialer     = (*webrtc.Transport)(nil)
	_ peerlink.Listener   = (*webrtc.Transport)(nil)
	_ peerlink.Negotiator = (*webrtc.Transport)(nil)
	_ webrtc.Signaller    = (*switchboard.Client)(nil)
)

// managed is a device with a manager that has this carrier and no other.
func managed(t *testing.T, url, name string) (*peerlink.ConnectionManager, identity.DeviceID) {
	t.Helper()
	me, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	line, err := switchboard.Dial(ctx, url, switchboard.Config{Identity: me})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	w, err := webrtc.New(webrtc.Config{Identity: me, Signaller: line, Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := peerlink.New(peerlink.Config{
		Identity: me, Dialers: []peerlink.Dialer{w}, Listeners: []peerlink.Listener{w}, Network: peerlink.IgnoreNetwork,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, me.DeviceID()
}

// board runs a switchboard and returns its URL.
func board(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- switchboard.NewServer(switchboard.ServerConfig{}).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "ws://" + l.Addr().String()
}

// Both managers connect to each other at the same moment: both get their
// channel, and bytes go both ways. fault: E3
func TestManagersConnectAtOnce(t *testing.T) {
	url := board(t)
	a, aID := managed(t, url, "alice")
	b, bID := managed(t, url, "bob")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var echoes sync.WaitGroup
	for _, m := range []*peerlink.ConnectionManager{a, b} {
		in, err := m.Listen("echo://*")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		echoes.Go(func() {
			conn, err := in.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := io.Copy(conn, conn); err != nil {
				t.Error(err)
			}
		})
	}
	var calls sync.WaitGroup
	for _, c := range []struct {
		m  *peerlink.ConnectionManager
		to identity.DeviceID
	}{{a, bID}, {b, aID}} {
		calls.Go(func() {
			sock, err := c.m.ConnectDevice(ctx, c.to, "echo://x", peerlink.ConnectOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer sock.Close()
			if _, err := sock.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			if err := sock.CloseWrite(); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(sock); err != nil || string(got) != "hello" {
				t.Errorf("echo %q, %v", got, err)
			}
		})
	}
	calls.Wait()
	echoes.Wait()
}
