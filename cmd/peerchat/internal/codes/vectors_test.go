package codes

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "make the test vectors anew")

// vectors are the golden bytes of docs/protocol.md, in hex where they are bytes.
type vectors struct {
	Purpose        string `json:"purpose"`
	Number         int    `json:"number"`
	Words          string `json:"words"`
	Inviter        string `json:"inviter"`
	Joiner         string `json:"joiner"`
	Context        string `json:"context"`
	JoinersScalar  string `json:"joiners_scalar"` // a
	JoinersShare   string `json:"joiners_share"`  // X
	InvitersShare  string `json:"inviters_share"` // Y
	Shared         string `json:"shared"`         // K
	JoinersMAC     string `json:"joiners_mac"`
	InvitersMAC    string `json:"inviters_mac"`
	Key            string `json:"key"`
	JoinersFrames  string `json:"joiners_frames"`
	InvitersFrames string `json:"inviters_frames"`
}

// vectorsOf runs the joiner's side with its scalar and share.
func vectorsOf(t *testing.T, scalar, x, y []byte) vectors {
	t.Helper()
	tt := terms(Joiner, alice, nil)
	e, err := newExchange(tt)
	if err != nil {
		t.Fatal(err)
	}
	e.mine, e.p.Aα = x, scalar
	if e.p.Xᵤ, e.p.Xᵥ, err = decodePoint(x); err != nil {
		t.Fatal(err)
	}
	s, err := e.finish(Joiner, y)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := e.p.SessionKey()
	if err != nil {
		t.Fatal(err)
	}
	share := func(p []byte) []byte { return frame(kindShare, append([]byte{version}, p...)...) }
	h := hex.EncodeToString
	return vectors{
		Purpose: tt.Purpose, Number: tt.Code.Number, Words: tt.Code.Words, Inviter: alice.String(), Joiner: bob.String(),
		Context: h(e.context), JoinersScalar: h(scalar), JoinersShare: h(x), InvitersShare: h(y), Shared: h(shared),
		JoinersMAC: h(s.joiner), InvitersMAC: h(s.inviter), Key: h(s.key[:]),
		JoinersFrames:  h(append(share(x), frame(kindConfirm, s.joiner...)...)),
		InvitersFrames: h(append(share(y), frame(kindConfirm, s.inviter...)...)),
	}
}

func TestVectors(t *testing.T) {
	path := filepath.Join("testdata", "vectors.json")
	if *update {
		j, err := newExchange(terms(Joiner, alice, nil))
		if err != nil {
			t.Fatal(err)
		}
		i, err := newExchange(terms(Inviter, bob, NewGuard()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.finish(Inviter, j.mine); err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(vectorsOf(t, j.p.Aα, j.mine, i.mine), "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(b, '\n'), 0o600)
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
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&want); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := vectorsOf(t, unhex(want.JoinersScalar), unhex(want.JoinersShare), unhex(want.InvitersShare)); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
