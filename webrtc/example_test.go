package webrtc_test

import (
	"context"
	"encoding/json"
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

// Two devices call each other up by a signalling of the application's own, here
// two channels with JSON; it could be e-mail.
func ExampleTransport_SetRemoteDescription() {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	type mail struct {
		Description *webrtc.Description
		Candidate   *webrtc.Candidate
	}
	device := func(name string, out chan<- []byte) (*webrtc.Transport, identity.DeviceID) {
		send := func(ctx context.Context, m mail) error {
			b, err := json.Marshal(m)
			if err != nil {
				return err
			}
			select {
			case out <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		me, err := identity.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		t, err := webrtc.New(webrtc.Config{
			Identity: me, Loopback: true,
			OnLocalDescription: func(ctx context.Context, _ identity.DeviceID, d webrtc.Description) error {
				return send(ctx, mail{Description: &d})
			},
			OnLocalCandidate: func(ctx context.Context, _ identity.DeviceID, c webrtc.Candidate) error {
				return send(ctx, mail{Candidate: &c})
			},
		})
		if err != nil {
			log.Fatal(err)
		}
		return t, me.DeviceID()
	}
	toBob, toAlice := make(chan []byte), make(chan []byte)
	alice, aliceID := device("alice", toBob)
	bob, bobID := device("bob", toAlice)
	deliver := func(in <-chan []byte, from identity.DeviceID, to *webrtc.Transport) {
		for {
			var m mail
			select {
			case b := <-in:
				if json.Unmarshal(b, &m) != nil {
					continue
				}
			case <-ctx.Done():
				return
			}
			// What comes late or twice is an error, and none of our business.
			if m.Description != nil {
				_ = to.SetRemoteDescription(from, *m.Description)
			} else if m.Candidate != nil {
				_ = to.AddRemoteCandidate(from, *m.Candidate)
			}
		}
	}
	go deliver(toBob, aliceID, bob)
	go deliver(toAlice, bobID, alice)
	defer alice.Close()
	defer bob.Close()

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
