package peerlink_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/peerlinktest"
)

// What returns an interface returns a nil one with an error, never a pointer that
// is nil in an interface that is not.
//
// case: E16
func TestNoConnOfAFailureIsATypedNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		nobody := identity.DeviceID{1}
		l, err := alice.ListenChannels("x://*")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		for name, call := range map[string]func() (io.Closer, error){
			"Dial":        func() (io.Closer, error) { return alice.Dial(background, nobody, "x://") },
			"DialContext": func() (io.Closer, error) { return alice.DialContext(background, "tcp", nobody.String()) },
			"DialWith": func() (io.Closer, error) {
				return alice.DialWith(peerlink.ConnectOptions{Carriers: []string{"memory"}})(background, "tcp", nobody.String())
			},
			"a wrong text":   func() (io.Closer, error) { return alice.DialContext(background, "tcp", "bob") },
			"Accept":         func() (io.Closer, error) { return l.Accept() },
			"Listen":         func() (io.Closer, error) { return alice.Listen("") },
			"ListenChannels": func() (io.Closer, error) { return alice.ListenChannels("") },
		} {
			if c, err := call(); c != nil || err == nil {
				t.Errorf("%s: %#v, %v; want nil and why", name, c, err)
			}
		}
		if c, err := l.AcceptChannel(background); c != nil || !errors.Is(err, net.ErrClosed) {
			t.Errorf("AcceptChannel on a closed listener: %v, %v", c, err)
		}
	})
}

// case: E16
func TestAddressesNameDeviceAndChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		id := bob.id.DeviceID().String()
		for addr, want := range map[string]string{
			"peer://" + id + "/file://photo.jpg":       "file://photo.jpg",
			"peer://" + id + "/a%20b?c#d":              "a%20b?c#d",
			"grpc+peer://" + id:                        "grpc://" + id,
			"db+peer://" + strings.ToUpper(id) + "/x/": "db://" + id + "/x/",
			id:         "http://" + id,
			id + ":80": "http://" + id,
		} {
			c, err := alice.DialContext(background, "tcp", addr)
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				continue
			}
			if got := <-accepted; got.URI() != want {
				t.Errorf("%s opened %q, want %q", addr, got.URI(), want)
			}
			_ = c.Close()
		}
		for _, addr := range []string{
			"", "bob", "://", "peer://", "peer://" + id, "peer://" + id + "/", "+peer://" + id, "http://" + id, id + ":443", id + "/x",
			"peer://bob/x", "x+peer://" + strings.Repeat("0", 64), "x+peer://" + id + ":80", strings.Repeat("x", 1<<16),
		} {
			c, err := alice.DialContext(background, "peerlink", addr)
			if err == nil {
				t.Errorf("%.100q opened %q", addr, (<-accepted).URI())
				_ = c.Close()
			} else if !strings.Contains(err.Error(), "want peer://DEVICEID/URI") || len(err.Error()) > 1000 {
				t.Errorf("%.100q: %.2000v", addr, err)
			}
		}
	})
}

// The methods are values of the types that libraries take.
//
// case: E16
func TestLibrariesDialThroughAManager(t *testing.T) {
	alice, _, _, url := web(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
	of := &http.Transport{DialContext: alice.DialContext}
	defer of.CloseIdleConnections()
	if code, body := get(t, &http.Client{Transport: of}, "http"+strings.TrimPrefix(url, "http+peer")); code != 200 || body != alice.id.DeviceID().String() {
		t.Errorf("%d %q", code, body)
	}
}

// A library that dials with options uses the carriers that they name, and no link
// of another one.
//
// case: E16
func TestLibrariesDialOverChosenCarriers(t *testing.T) {
	n := peerlinktest.New(t, peerlinktest.InMemory("near"), peerlinktest.InMemory("far"))
	alice, bob := n.Peer("alice"), n.Peer("bob")
	l, err := bob.Listen("http://*")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	defer serving.Wait()
	defer srv.Close()
	for _, carrier := range []string{"near", "far"} {
		over := &http.Transport{DialContext: alice.DialWith(peerlink.ConnectOptions{Carriers: []string{carrier}})}
		if code, _ := get(t, &http.Client{Transport: over}, "http://"+bob.ID().String()); code != http.StatusOK {
			t.Errorf("over %s: status %d", carrier, code)
		}
		over.CloseIdleConnections()
	}
	links := map[string]int{}
	for _, c := range alice.Connections() {
		links[c.Carrier]++
	}
	if links["near"] != 1 || links["far"] != 1 {
		t.Errorf("links by carrier: %v, want one each", links)
	}
	if c, err := alice.DialWith(peerlink.ConnectOptions{Carriers: []string{"none"}})(background, "tcp", bob.ID().String()); c != nil || err == nil {
		t.Errorf("over a carrier that there is not: %v, %v", c, err)
	}
}

// case: E18
func TestAcceptedChannelsHaveTheirOwnType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		l, err := bob.ListenChannels("file://*")
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if c, err := l.AcceptChannel(short); c != nil || !errors.Is(err, context.DeadlineExceeded) || short.Err() == nil {
			t.Errorf("nobody called: %v, %v", c, err)
		}
		a := connect(t, alice, bob, "file://photo.jpg")
		b, err := l.AcceptChannel(background)
		if err != nil || b.URI() != "file://photo.jpg" {
			t.Fatal(b, err)
		}
		if err := b.CloseWrite(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(a); err != nil || len(rest) > 0 {
			t.Errorf("after CloseWrite: %q, %v", rest, err)
		}
		plain, err := bob.Listen("other://*")
		if err != nil {
			t.Fatal(err)
		}
		if _, is := plain.(peerlink.ChannelListener); !is {
			t.Error("what Listen returns is no ChannelListener")
		}
		ended := make(chan error, 1)
		go func() {
			_, err := l.AcceptChannel(background)
			ended <- err
		}()
		synctest.Wait()
		_ = l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed meanwhile: %v", err)
		}
	})
}
