package multiplex_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"peerlink/multiplex"
)

func Example() {
	a, b := net.Pipe() // any reliable, ordered stream
	client := multiplex.Client(a, multiplex.Config{})
	defer client.Close()
	server := multiplex.Server(b, multiplex.Config{})
	defer server.Close()

	go func() {
		for {
			req, err := server.Accept(context.Background())
			if err != nil {
				return
			}
			if req.Name() != "file://photo.jpg" {
				_ = req.Decline("no such file")
				continue
			}
			sock, err := req.Accept()
			if err != nil {
				continue // the peer gave up meanwhile
			}
			fmt.Fprint(sock, "the photo")
			_ = sock.Close()
		}
	}()

	sock, err := client.Open(context.Background(), "file://photo.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	photo, err := io.ReadAll(sock)
	fmt.Printf("%s, %v\n", photo, err)
	_ = sock.Close()

	_, err = client.Open(context.Background(), "file://other.jpg")
	fmt.Println(err)
	// Output:
	// the photo, <nil>
	// channel "file://other.jpg" declined by peer: "no such file"
}
