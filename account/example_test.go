package account_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"peerlink"
	"peerlink/account"
	"peerlink/dht"
)

// Alice knows Bob's device id and one node of the network. She finds him
// through the DHT, connects, and sends him a photo over a channel.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "peerlink-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A bootstrap node, as "peerchat node" is one.
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	open := func(name string) *account.Account {
		acc, err := account.Create(filepath.Join(dir, name), account.Options{
			Name: name, Bootstrap: node.Addrs(), Loopback: true,
			LocalDir: "off", // else they would meet on this machine, without any network
		})
		if err != nil {
			log.Fatal(err)
		}
		return acc
	}

	bob := open("bob")
	defer bob.Close()
	files, err := bob.ConnectionManager().Listen("file://*") // before anybody can call
	if err != nil {
		log.Fatal(err)
	}
	if err := bob.Start(ctx); err != nil {
		log.Fatal(err)
	}
	received := make(chan string)
	go func() {
		conn, err := files.Accept()
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		from, _ := peerlink.PeerOf(conn)
		content, err := io.ReadAll(conn)
		if err != nil {
			log.Fatal(err)
		}
		received <- fmt.Sprintf("%s sent %q", from.Name, content)
	}()
	if err := bob.Ready(ctx); err != nil { // others can find him now
		log.Fatal(err)
	}

	alice := open("alice")
	defer alice.Close()
	if err := alice.Start(ctx); err != nil {
		log.Fatal(err)
	}
	photo, err := alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "file://photo.jpg", peerlink.ConnectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := photo.Write([]byte("a small picture")); err != nil {
		log.Fatal(err)
	}
	if err := photo.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	if err := alice.Shutdown(ctx); err != nil { // what was written is there, else it says which link was cut
		log.Fatal(err)
	}
	// Output: alice sent "a small picture"
}
