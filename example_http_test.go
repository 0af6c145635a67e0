package peerlink_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"peerlink"
	"peerlink/identity"
)

// A web server on one device, a web client on another: no ports, no names, no
// certificates to buy, and r.RemoteAddr is the caller's proven DeviceID.
func ExampleConnectionManager_Transport() {
	alice, bob, bobID := pair()
	defer alice.Close()
	defer bob.Close()

	l, err := bob.Listen("http://*")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s served", r.URL.Path)
		}))
	}()

	client := &http.Client{Transport: alice.Transport()}
	resp, err := client.Get("http+peer://" + bobID.String() + "/photos")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s: %s, %v\n", resp.Status, body, err)
	// Output: 200 OK: /photos served, <nil>
}

// pair makes two managers with a link between them.
func pair() (alice, bob *peerlink.ConnectionManager, bobID identity.DeviceID) {
	manager := func(name string) (*peerlink.ConnectionManager, *identity.Identity) {
		id, err := identity.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		m, err := peerlink.New(peerlink.Config{Identity: id})
		if err != nil {
			log.Fatal(err)
		}
		return m, id
	}
	alice, a := manager("alice")
	bob, b := manager("bob")
	here, there := net.Pipe()
	go func() { _, _ = bob.AddConn(context.Background(), there, a.Peer(), peerlink.Inbound) }()
	if _, err := alice.AddConn(context.Background(), here, b.Peer(), peerlink.Outbound); err != nil {
		log.Fatal(err)
	}
	return alice, bob, b.DeviceID()
}
