package webrtc_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/webrtc"
	"peerlink/webrtc/switchboard"
)

// Two devices call each other up over a switchboard and talk over a data
// channel.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	sctx, end := context.WithCancel(ctx)
	go func() { served <- switchboard.NewServer(switchboard.ServerConfig{}).Serve(sctx, l) }()
	defer func() { end(); <-served }()

	device := func(name string) (*webrtc.Transport, identity.DeviceID, func()) {
		me, err := identity.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		line, err := switchboard.Dial(ctx, "ws://"+l.Addr().String(), switchboard.Config{Identity: me})
		if err != nil {
			log.Fatal(err)
		}
		t, err := webrtc.New(webrtc.Config{Identity: me, Signaller: line, Loopback: true})
		if err != nil {
			log.Fatal(err)
		}
		return t, me.DeviceID(), func() { t.Close(); line.Close() }
	}
	alice, _, closeAlice := device("alice")
	defer closeAlice()
	bob, bobID, closeBob := device("bob")
	defer closeBob()

	go func() {
		conn, peer, err := bob.Accept(ctx)
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "hello %s", peer.Name)
	}()
	conn, peer, err := alice.Dial(ctx, bobID)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	fmt.Printf("%s says %q (%v)\n", peer.Name, said, err)
	// Output: bob says "hello alice" (<nil>)
}
