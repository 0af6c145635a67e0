//go:build linux

package daemon

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"peerlink"
	"peerlink/identity"
)

// The device at the other end has proven the code and its own account: what it
// sends must be of that one.
// fault: D2
func TestANewDeviceTakesNoAccountThatWasNotProven(t *testing.T) {
	local, dir := street(t), t.TempDir()
	phone, laptop, eve := open(t, filepath.Join(dir, "phone"), local), open(t, filepath.Join(dir, "laptop"), local), open(t, filepath.Join(dir, "eve"), local)
	chain, list, err := eve.acc.SignDevice(phone.acc.Identity().Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := list.MarshalBinary()
	if err := phone.d.adopt(laptop.acc.Identity().Peer(), chain, b); err == nil {
		t.Error("it came into an account that nobody has proven")
	}
	others, _, err := laptop.acc.SignDevice(eve.acc.Identity().Peer(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string][][]byte{"another device's chain": others, "none": nil, "garbage": {[]byte("x"), []byte("y")}} {
		if err := phone.d.adopt(laptop.acc.Identity().Peer(), c, b); !errors.Is(err, identity.ErrChain) {
			t.Errorf("%s: %v", what, err)
		}
	}
	phone.close(t)
	if again := open(t, phone.acc.Dir(), local); again.acc.Identity().AccountID() != phone.acc.Identity().AccountID() {
		t.Error("it is in another account")
	}
}

// scripted is a connection that reads what was written down.
type scripted struct {
	net.Conn
	r io.Reader
}

func (s scripted) Read(p []byte) (int, error) { return s.r.Read(p) }

func messageBytes(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		b.Write([]byte{byte(len(p) >> 24), byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p))})
		b.Write(p)
	}
	return b.Bytes()
}

func read(b []byte) (list []byte, chain [][]byte, err error) {
	return readSigned(peerlink.NewMessages(&boundedConn{Conn: scripted{r: bytes.NewReader(b)}, left: maxSigned}))
}

func TestWhatASignerSaysIsBounded(t *testing.T) {
	l, a, b := []byte("list"), []byte("device"), []byte("account")
	if list, chain, err := read(messageBytes(t, l, a, b)); err != nil || !bytes.Equal(list, l) || len(chain) != 2 {
		t.Errorf("%q, %q, %v", list, chain, err)
	}
	for what, in := range map[string][]byte{
		"nothing": nil, "no chain": messageBytes(t, l), "half a chain": messageBytes(t, l, a), "cut off": messageBytes(t, l, a, b)[:20],
		"too many":    messageBytes(t, l, a, b, b, b),
		"endless":     messageBytes(t, l, make([]byte, maxSigned), b),
		"all at once": append([]byte{0, 0xff, 0xff, 0xff}, make([]byte, maxSigned)...),
	} {
		if list, chain, err := read(in); err == nil {
			t.Errorf("%s: %q, %d certificates", what, list, len(chain))
		}
	}
}

func FuzzReadSigned(f *testing.F) {
	f.Add(messageBytes(f, []byte("list"), []byte("device"), []byte("account")))
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		list, chain, err := read(in)
		total := len(list)
		for _, c := range chain {
			total += len(c)
		}
		if err == nil && (len(chain) < 2 || len(chain) > identity.MaxChainLen || total > len(in)) {
			t.Errorf("%d certificates, %d bytes of %d", len(chain), total, len(in))
		}
	})
}
