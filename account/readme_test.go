package account_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"peerlink"
	"peerlink/account"
	"peerlink/dht"
	"peerlink/identity"
)

// callerOfREADME is the README's first piece of Go, word for word.
func callerOfREADME(ctx context.Context, dir string, nodes []string, bob identity.DeviceID, picture []byte) error {
	alice, err := account.Create(dir, account.Options{Name: "alice", Bootstrap: nodes, Loopback: true})
	if err != nil {
		return err
	}
	defer alice.Close()
	if err := alice.Start(ctx); err != nil {
		return err
	}
	photo, err := alice.ConnectionManager().ConnectDevice(ctx, bob, "file://photo.jpg", peerlink.ConnectOptions{})
	if err != nil {
		return err // says every way that was tried, and why each failed
	}
	defer photo.Close()
	_, err = photo.Write(picture) // a net.Conn, with CloseWrite and Reset
	return err
}

// calleeOfREADME is the second.
func calleeOfREADME(bob *account.Account) (picture []byte, sender string, err error) {
	files, err := bob.ConnectionManager().Listen("file://*") // a net.Listener; http.Serve works on one
	if err != nil {
		return nil, "", err
	}
	conn, err := files.Accept()
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	from, _ := peerlink.PeerOf(conn) // the proven device at the other end
	picture, err = io.ReadAll(conn)
	return picture, from.Name, err
}

func TestCodeOfREADMEWorks(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	bob, err := account.Create(filepath.Join(dir, "bob"), account.Options{Name: "bob", Bootstrap: node.Addrs(), Loopback: true, LocalDir: "off"})
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	if err := bob.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := bob.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, from, err := calleeOfREADME(bob)
		if err != nil || from != "alice" || !bytes.Equal(got, []byte("picture")) {
			t.Errorf("%q from %q, %v", got, from, err)
		}
	}()
	if err := callerOfREADME(ctx, filepath.Join(dir, "alice"), node.Addrs(), bob.Identity().DeviceID(), []byte("picture")); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestREADMEShowsThisCode(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of Go in README.md, want 2", len(blocks))
	}
	for _, b := range blocks {
		for line := range strings.Lines(b[1]) {
			if line = strings.TrimSpace(line); line != "" && !strings.Contains(string(source), line) {
				t.Errorf("README.md shows %q, which nothing here runs", line)
			}
		}
	}
}
