package dht

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// fault: A4, A10
func TestFramesSurviveAnySplit(t *testing.T) {
	var wire []byte
	payloads := [][]byte{{}, {1}, bytes.Repeat([]byte{7}, maxPutLen)}
	for _, p := range payloads {
		wire = appendFrame(wire, kindSignal, p)
	}
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(wire), "byte by byte": iotest.OneByteReader(bytes.NewReader(wire))} {
		for i, want := range payloads {
			k, got, err := readFrame(r, maxPutLen)
			if err != nil || k != kindSignal || !bytes.Equal(got, want) {
				t.Fatalf("%s: frame %d: kind %d, %d bytes, %v", name, i, k, len(got), err)
			}
		}
		if _, _, err := readFrame(r, maxPutLen); err != io.EOF {
			t.Errorf("%s: after the last frame: %v", name, err)
		}
	}
}

// fault: A1, A3
func TestFrameIsRefusedFromItsHeader(t *testing.T) {
	for name, h := range map[string][]byte{"too long": {0xff, 0xff, 1}, "no kind": {0, 0, 1}} {
		if _, _, err := readFrame(io.MultiReader(bytes.NewReader(h), iotest.ErrReader(errors.New("read on"))), 100); !errors.Is(err, errOversize) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wire := appendFrame(nil, kindSignal, []byte("four"))
	for i := 1; i < len(wire); i++ {
		if _, _, err := readFrame(bytes.NewReader(wire[:i]), 100); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestReadKindTellsARefusal(t *testing.T) {
	if _, err := readKind(bytes.NewReader(appendFrame(nil, kindRefused, []byte("no\x1b[2J room"))), kindTaken, 1); err == nil || !bytes.Contains([]byte(err.Error()), []byte(`"no\x1b[2J room"`)) {
		t.Errorf("%v", err)
	}
	for name, f := range map[string][]byte{
		"another kind": appendFrame(nil, kindSignal, []byte{1}),
		"too long":     appendFrame(nil, kindTaken, []byte{1, 2}),
		"empty":        nil,
	} {
		if _, err := readKind(bytes.NewReader(f), kindTaken, 1); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestListenStatementsDiffer: no two of these may be signed by the same bytes.
func TestListenStatementsDiffer(t *testing.T) {
	a, b := identity.DeviceID{1}, identity.DeviceID{2}
	n1, n2 := bytes.Repeat([]byte{1}, nonceLen), bytes.Repeat([]byte{2}, nonceLen)
	seen := map[string]bool{}
	for _, st := range [][]byte{
		listenStatement(n1, a, "node", "listener"), listenStatement(n2, a, "node", "listener"), listenStatement(n1, b, "node", "listener"),
		listenStatement(n1, a, "nodel", "istener"), listenStatement(n1, a, "listener", "node"), listenStatement(n1, a, "node", "other"),
	} {
		if seen[string(st)] {
			t.Errorf("twice: %x", st)
		}
		seen[string(st)] = true
	}
}

func FuzzFrame(f *testing.F) {
	alice := fixedIdentity(f, "alice")
	proof, err := encodeProof(alice, listenStatement(make([]byte, nonceLen), alice.DeviceID(), peer.ID("n"), peer.ID("l")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendFrame(nil, kindProof, proof))
	f.Add(appendFrame(nil, kindPut, make([]byte, idLen), []byte("sealed")))
	f.Add([]byte{0xff, 0xff, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, p, err := readFrame(bytes.NewReader(b), maxPutLen)
		if err != nil {
			return
		}
		if again := appendFrame(nil, k, p); !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x was read, %x would be written", b[:len(again)], again)
		}
		if chain, sig, err := parseProof(p); err == nil && (len(chain) > identity.MaxChainLen || len(sig) > maxSignature) {
			t.Fatal("beyond its bounds")
		}
	})
}
