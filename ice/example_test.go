package ice_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"peerlink/ice"
	"peerlink/identity"
)

// wire is a signaller for two devices of one process.
type wire struct {
	self    identity.Peer
	in, out chan signal
}

type signal struct {
	from identity.Peer
	msg  []byte
}

func (w wire) Send(_ context.Context, _ identity.DeviceID, msg []byte) error {
	w.out <- signal{w.self, msg}
	return nil
}

func (w wire) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case s := <-w.in:
		return s.from, s.msg, nil
	case <-ctx.Done():
		return identity.Peer{}, nil, ctx.Err()
	}
}

func Example() {
	alice, _ := identity.Generate("alice")
	bob, _ := identity.Generate("bob")
	there, back := make(chan signal, 8), make(chan signal, 8)

	a, err := ice.New(ice.Config{Identity: alice, Signaller: wire{alice.Peer(), back, there}, Loopback: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := ice.New(ice.Config{Identity: bob, Signaller: wire{bob.Peer(), there, back}, Loopback: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	accepted := make(chan net.Conn, 1)
	go func() {
		conn, peer, err := b.Accept(context.Background())
		fmt.Println("bob was called by", peer.Name, err)
		accepted <- conn
	}()
	conn, peer, err := a.Dial(context.Background(), bob.DeviceID())
	if err != nil {
		fmt.Println(err)
		return
	}
	theirs := <-accepted
	fmt.Println("alice reached", peer.Name)
	go func() {
		conn.Write([]byte("hello"))
		conn.Close()
	}()
	got, err := io.ReadAll(theirs)
	fmt.Println(string(got), err)
	theirs.Close()
	// Output:
	// bob was called by alice <nil>
	// alice reached bob
	// hello <nil>
}
