package localipc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/identity"
)

var update = flag.Bool("update", false, "make the test vectors anew")

// vectors are the golden bytes of docs/protocol.md, in hex: what goes over a
// socket between alice, who calls, and bob. Messages are whole, with kind and
// length. The keys in alice.pem and bob.pem are known to all the world.
type vectors struct {
	Comment         string `json:"comment"`
	UnixMilli       int64  `json:"unix_milli"`
	Alice           string `json:"alice"`
	Bob             string `json:"bob"`
	UID             int    `json:"uid"`
	CallerPID       int    `json:"caller_pid"`
	CalleePID       int    `json:"callee_pid"`
	CallerHello     string `json:"caller_hello"`
	ServiceHello    string `json:"service_hello"`
	CalleeHello     string `json:"callee_hello"`
	CallerStatement string `json:"caller_statement"`
	CallerProof     string `json:"caller_proof"`
	CalleeStatement string `json:"callee_statement"`
	CalleeProof     string `json:"callee_proof"`
	Ready           string `json:"ready"`
	Refused         string `json:"refused"`
	RefusedCaller   string `json:"refused_caller"`
	Announcement    string `json:"announcement"`
}

const vectorComment = "A handshake over a local socket, and an announcement (docs/protocol.md, \"On one machine\"). " +
	"Messages are kind:uint8, length:uint16, body. Nonces are 32 times 0xa1 and 0xb2. A statement is what its side signs, for the " +
	"purpose \"local caller\" or \"local callee\". Service hello is the caller's that asks for shared memory. Refused caller has a code: the device does not want the caller. The announcement is bob's."

func fixedIdentity(t *testing.T, name string) *identity.Identity {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// makeVectors computes the vectors; all of it is deterministic.
func makeVectors(t *testing.T, alice, bob *identity.Identity, at time.Time) vectors {
	t.Helper()
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	message := func(kind byte, body []byte) string {
		var b bytes.Buffer
		must(nil, send(&b, kind, body))
		return hex.EncodeToString(b.Bytes())
	}
	nonce := func(b byte) (n [nonceLen]byte) { copy(n[:], bytes.Repeat([]byte{b}, nonceLen)); return n }
	prove := func(who *identity.Identity, as role, statement []byte, c creds) []byte {
		return must(proof{chain: who.Peer().Chain(), creds: c, sig: must(who.Sign(string(as), statement))}.encode())
	}
	callers, callees := creds{pid: 4242, uid: 1000}, creds{pid: 4343, uid: 1000}
	x := &exchange{}
	x.hellos[0] = must(hello{service: streamService, device: bob.DeviceID(), nonce: nonce(0xa1)}.encode())
	service := must(hello{service: "shm", device: bob.DeviceID(), nonce: nonce(0xa1)}.encode())
	x.hellos[1] = must(hello{device: bob.DeviceID(), nonce: nonce(0xb2)}.encode())
	first := x.statement(callers)
	x.first = prove(alice, caller, first, callers)
	second := x.statement(callees)
	var refused, refusedCaller bytes.Buffer
	refuse(&refused, errors.New("service \"pigeon\" is not offered"))
	refuse(&refusedCaller, fmt.Errorf("%w: device 0a1b is banned", identity.ErrBanned))
	return vectors{
		Comment: vectorComment, UnixMilli: at.UnixMilli(), Alice: alice.DeviceID().String(), Bob: bob.DeviceID().String(),
		UID: callers.uid, CallerPID: callers.pid, CalleePID: callees.pid,
		CallerHello: message(kindHello, x.hellos[0]), ServiceHello: message(kindHello, service), CalleeHello: message(kindHello, x.hellos[1]),
		CallerStatement: hex.EncodeToString(first), CallerProof: message(kindProof, x.first),
		CalleeStatement: hex.EncodeToString(second), CalleeProof: message(kindProof, prove(bob, callee, second, callees)),
		Ready: message(kindReady, nil), Refused: hex.EncodeToString(refused.Bytes()), RefusedCaller: hex.EncodeToString(refusedCaller.Bytes()),
		Announcement: hex.EncodeToString(must(Config{Identity: bob, Services: []string{"shm"}}.announce(callees.pid, at))),
	}
}

func TestVectorsAreMetByteForByte(t *testing.T) {
	alice, bob := fixedIdentity(t, "alice"), fixedIdentity(t, "bob")
	path := filepath.Join("testdata", "vectors.json")
	if *update {
		b, err := json.MarshalIndent(makeVectors(t, alice, bob, time.Now()), "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want vectors
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if got := makeVectors(t, alice, bob, time.UnixMilli(want.UnixMilli)); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	checkHandshake(t, want, alice, bob)
}

// checkHandshake reads the vectors as the two sides would.
func checkHandshake(t *testing.T, v vectors, alice, bob *identity.Identity) {
	t.Helper()
	read := func(s string, kind byte) []byte {
		t.Helper()
		b, err := hex.DecodeString(s)
		if err == nil {
			b, err = receive(bytes.NewReader(b), kind)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	x := &exchange{creds: creds{pid: v.CallerPID, uid: v.UID}, hellos: [2][]byte{read(v.CallerHello, kindHello), read(v.CalleeHello, kindHello)}}
	first := read(v.CallerProof, kindProof)
	if p, err := x.judge(first, caller, identity.DeviceID{}); err != nil || p.Device != alice.DeviceID() {
		t.Errorf("the caller's proof: %v, %v", p, err)
	}
	x.first, x.creds = first, creds{pid: v.CalleePID, uid: v.UID}
	if p, err := x.judge(read(v.CalleeProof, kindProof), callee, bob.DeviceID()); err != nil || p.Device != bob.DeviceID() {
		t.Errorf("the callee's proof: %v, %v", p, err)
	}
	if h, err := decodeHello(read(v.ServiceHello, kindHello), caller); err != nil || h.service != "shm" || h.device != bob.DeviceID() {
		t.Errorf("the hello for shared memory: %+v, %v", h, err)
	}
	if b := read(v.Ready, kindReady); len(b) != 0 {
		t.Errorf("ready has %d bytes", len(b))
	}
	for said, forGood := range map[string]bool{v.Refused: false, v.RefusedCaller: true} {
		refused, err := hex.DecodeString(said)
		if err != nil {
			t.Fatal(err)
		}
		_, err = receive(bytes.NewReader(refused), kindReady)
		if _, ok := errors.AsType[unwanted](err); !errors.Is(err, ErrRefused) || ok != forGood {
			t.Errorf("refused: %v", err)
		}
	}
	announcement, err := hex.DecodeString(v.Announcement)
	if err != nil {
		t.Fatal(err)
	}
	d, err := readAnnouncement(announcement, time.Now())
	if err != nil || d.Peer.Device != bob.DeviceID() || d.PID != v.CalleePID || len(d.Services) != 1 || d.Since.UnixMilli() != v.UnixMilli {
		t.Errorf("announcement: %+v, %v", d, err)
	}
}
