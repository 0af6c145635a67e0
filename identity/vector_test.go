package identity

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "make new test vectors")

// hexBytes is a byte string in hex, as the vectors write it.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vector is testdata/vector.json: one device, what it signed and what was
// sealed for it. Its keys are in testdata/identity.pem.
type vector struct {
	Device     DeviceID   `json:"device_id"`
	Account    AccountID  `json:"account_id"`
	Name       string     `json:"name"`
	At         time.Time  `json:"valid_at"`
	Chain      []hexBytes `json:"chain"`
	Purpose    string     `json:"purpose"`
	Message    hexBytes   `json:"message"`
	Signature  hexBytes   `json:"signature"`
	SealingKey hexBytes   `json:"sealing_key"`
	Info       string     `json:"seal_info"`
	Sealed     hexBytes   `json:"sealed_message"`
	Trust      string     `json:"trust_text"`
}

const (
	vectorFile = "testdata/vector.json"
	vectorPEM  = "testdata/identity.pem"
)

func makeVector(t *testing.T) {
	id := generate(t, "alice's laptop")
	v := vector{
		Device: id.DeviceID(), Account: id.AccountID(), Name: id.Name(), At: time.Now().UTC().Truncate(time.Second),
		Purpose: "record", Message: hexBytes("here I am"), SealingKey: id.SealingKey(), Info: "signal",
	}
	for _, c := range id.Peer().Chain() {
		v.Chain = append(v.Chain, c)
	}
	var tr Trust
	tr.SetPolicy(RefuseUndecided)
	err := errors.Join(tr.Set(id.AccountID(), Allowed), tr.Set(id.DeviceID(), Banned))
	text, err2 := tr.MarshalText()
	v.Trust = string(text)
	var err3, err4 error
	v.Signature, err3 = id.Sign(v.Purpose, v.Message)
	v.Sealed, err4 = Seal(v.SealingKey, v.Info, v.Message)
	out, err5 := json.MarshalIndent(v, "", "  ")
	if err := errors.Join(err, err2, err3, err4, err5,
		os.WriteFile(vectorFile, append(out, '\n'), 0o644), os.WriteFile(vectorPEM, encode(t, id), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// readVector returns the vector, and its chain as VerifyChain takes it.
func readVector(t testing.TB) (v vector, chain [][]byte) {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Chain {
		chain = append(chain, c)
	}
	return v, chain
}

// The vectors are what other implementations are checked against: whatever
// changes here has changed the protocol.
func TestVectors(t *testing.T) {
	if *update {
		makeVector(t)
	}
	v, chain := readVector(t)
	p, err := VerifyChain(chain, v.At)
	if err != nil || p.Device != v.Device || p.Account != v.Account || p.Name != v.Name {
		t.Errorf("chain: %v of %s, %v", p, p.Account, err)
	}
	if err := p.Verify(v.Purpose, v.Message, v.Signature); err != nil {
		t.Errorf("signature: %v", err)
	}
	text, err := os.ReadFile(vectorPEM)
	if err != nil {
		t.Fatal(err)
	}
	id, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(t, id); string(got) != string(text) {
		t.Errorf("the identity is written differently now:\n%s", got)
	}
	if sig, err := id.Sign(v.Purpose, v.Message); err != nil || string(sig) != string(v.Signature) {
		t.Errorf("signing again gives %x, %v", sig, err)
	}
	if id.DeviceID() != v.Device || string(id.SealingKey()) != string(v.SealingKey) {
		t.Error("the keys are not those of the vector")
	}
	if msg, err := id.Open(v.Info, v.Sealed); err != nil || string(msg) != string(v.Message) {
		t.Errorf("sealed message: %q, %v", msg, err)
	}
	var tr Trust
	if err := tr.UnmarshalText([]byte(v.Trust)); err != nil || tr.Check(p) == nil || tr.Decision(v.Account) != Allowed {
		t.Errorf("trust text: %v", err)
	}
}

// chainVector is a chain of testdata/chains.json, valid at certNow, and whether a
// verifier takes it.
type chainVector struct {
	Name  string     `json:"name"`
	Taken bool       `json:"taken"`
	Chain []hexBytes `json:"chain"`
}

const chainsFile = "testdata/chains.json"

func makeChains(t *testing.T) {
	var all []chainVector
	add := func(name string, taken bool, chain [][]byte) {
		v := chainVector{Name: name, Taken: taken}
		for _, c := range chain {
			v.Chain = append(v.Chain, c)
		}
		all = append(all, v)
	}
	for name, edits := range goodUses(t) {
		add(name, true, under(t, edits[0], edits[1], edits[2]))
	}
	for _, bad := range badUses(t, newFamily(t)) {
		add(bad.name, false, bad.chain)
	}
	slices.SortFunc(all, func(a, b chainVector) int { return strings.Compare(a.Name, b.Name) })
	out, err := json.MarshalIndent(struct {
		At     time.Time     `json:"valid_at"`
		Chains []chainVector `json:"chains"`
	}{certNow, all}, "", "  ")
	if err := errors.Join(err, os.WriteFile(chainsFile, append(out, '\n'), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// case: S22
func TestChainVectors(t *testing.T) {
	if *update {
		makeChains(t)
	}
	var file struct {
		At     time.Time     `json:"valid_at"`
		Chains []chainVector `json:"chains"`
	}
	b, err := os.ReadFile(chainsFile)
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil || len(file.Chains) < 20 {
		t.Fatal(len(file.Chains), err)
	}
	for _, v := range file.Chains {
		chain := make([][]byte, len(v.Chain))
		for i, c := range v.Chain {
			chain[i] = c
		}
		if _, err := VerifyChain(chain, file.At); (err == nil) != v.Taken {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}
