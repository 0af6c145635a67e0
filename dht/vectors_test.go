package dht

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

var update = flag.Bool("update", false, "make the test vectors anew")

// vectors are the golden bytes of docs/protocol.md, in hex. The keys in
// alice.pem and bob.pem are known to all the world.
type vectors struct {
	UnixMilli       int64  `json:"unix_milli"`
	Alice           string `json:"alice"`
	Bob             string `json:"bob"`
	RecordKey       string `json:"record_key"`
	RecordStatement string `json:"record_statement"`
	Record          string `json:"record"`
	SignalID        string `json:"signal_id"`
	SignalBody      string `json:"signal_body"`
	SignalStatement string `json:"signal_statement"`
	SignalPlain     string `json:"signal_plain"`
	SignalSealed    string `json:"signal_sealed"`
	Nonce           string `json:"nonce"`
	NodePeer        string `json:"node_peer"`
	ListenerPeer    string `json:"listener_peer"`
	ListenStatement string `json:"listen_statement"`
	Proof           string `json:"proof"`
	PutFrame        string `json:"put_frame"`
	TakenFrame      string `json:"taken_frame"`
}

// fixedIdentity reads an identity whose key everybody knows.
func fixedIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	path := filepath.Join("testdata", name+".pem")
	if *update {
		b, err := newIdentity(t, name).Encode()
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// makeVectors computes what is deterministic; the sealed signal is not.
func makeVectors(t testing.TB, alice, bob *identity.Identity, at time.Time) vectors {
	t.Helper()
	check := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	statement := func(b []byte) string {
		s, _, err := readSigned("signal", b, maxPlainLen, 0)
		check(nil, err)
		return hex.EncodeToString(s.statement)
	}
	record := check(encodeRecord(alice, 7, at, at.Add(2*time.Hour)))
	id := [signalIDLen]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	body := []byte("an offer")
	plain := check(encodeSignal(alice, bob.DeviceID(), id, at, 0, body, nil))
	nonce := bytes.Repeat([]byte{0xa5}, nonceLen)
	node, listener := peer.ID("a node's peer id"), peer.ID("a listener's peer id")
	st := listenStatement(nonce, alice.DeviceID(), node, listener)
	to := bob.DeviceID()
	return vectors{
		UnixMilli: at.UnixMilli(), Alice: alice.DeviceID().String(), Bob: to.String(),
		RecordKey: recordKey(alice.DeviceID()), RecordStatement: statement(record), Record: hex.EncodeToString(record),
		SignalID: hex.EncodeToString(id[:]), SignalBody: hex.EncodeToString(body),
		SignalStatement: statement(plain), SignalPlain: hex.EncodeToString(plain),
		Nonce: hex.EncodeToString(nonce), NodePeer: hex.EncodeToString([]byte(node)), ListenerPeer: hex.EncodeToString([]byte(listener)),
		ListenStatement: hex.EncodeToString(st), Proof: hex.EncodeToString(check(encodeProof(alice, st))),
		PutFrame:   hex.EncodeToString(appendFrame(nil, kindPut, to[:], []byte("sealed"))),
		TakenFrame: hex.EncodeToString(appendFrame(nil, kindTaken, []byte{statusPushed})),
	}
}

func TestVectorsAreMetByteForByte(t *testing.T) {
	alice, bob := fixedIdentity(t, "alice"), fixedIdentity(t, "bob")
	path := filepath.Join("testdata", "vectors.json")
	if *update {
		writeVectors(t, path, alice, bob)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want vectors
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(want.UnixMilli)
	got := makeVectors(t, alice, bob, at)
	got.SignalSealed = want.SignalSealed
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if rec, err := decodeRecord(unhex(want.Record), alice.DeviceID(), at); err != nil || rec.Seq != 7 {
		t.Errorf("record: %+v, %v", rec, err)
	}
	plain, err := openSignal(bob, unhex(want.SignalSealed))
	if err != nil || hex.EncodeToString(plain) != want.SignalPlain {
		t.Errorf("sealed signal opened as %x, %v", plain, err)
	}
	s, err := parseSignal(plain)
	if err == nil {
		err = s.verify(at)
	}
	if err != nil || s.from.Device != alice.DeviceID() || string(s.body) != "an offer" || s.to != bob.DeviceID() {
		t.Errorf("signal %+v, %v", s, err)
	}
	if err := checkProof(unhex(want.Proof), unhex(want.ListenStatement), alice.DeviceID(), at); err != nil {
		t.Errorf("proof: %v", err)
	}
}

func writeVectors(t *testing.T, path string, alice, bob *identity.Identity) {
	t.Helper()
	v := makeVectors(t, alice, bob, time.Now())
	plain, err := hex.DecodeString(v.SignalPlain)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealSignal(bob.DeviceID(), bob.SealingKey(), plain)
	if err != nil {
		t.Fatal(err)
	}
	v.SignalSealed = hex.EncodeToString(sealed)
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
