package switchboard

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
)

var update = flag.Bool("update", false, "make new test vectors")

const vectorFile = "testdata/vectors.json"

// hexBytes is a byte string in hex, as the vectors write it.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vectors is testdata/vectors.json: what a device writes and reads on a line.
// Signatures with P-256 and sealed letters differ each time they are made, so
// these are read; all else is made again and compared.
type vectors struct {
	Comment string                  `json:"comment"`
	At      int64                   `json:"unix_milli"`
	Devices map[string]vectorDevice `json:"devices"`
	Joins   []vectorJoin            `json:"joins"`
	Letters []vectorLetter          `json:"letters"`
	Frames  []vectorFrame           `json:"frames"`
	Refused vectorRefused           `json:"refused"`
}

type vectorDevice struct {
	PEM     string            `json:"pem"`
	Key     hexBytes          `json:"device_key_pkcs8"`
	Device  identity.DeviceID `json:"device_id"`
	Account string            `json:"account_id"`
	Name    string            `json:"name"`
	Chain   []hexBytes        `json:"chain"`
}

// vectorJoin is a device that proves itself to a server.
type vectorJoin struct {
	Device    string   `json:"device"`
	Host      string   `json:"host"`
	Nonce     hexBytes `json:"nonce"`
	KeyOpen   hexBytes `json:"line_private_key"` // the scalar
	Key       hexBytes `json:"line_key"`
	Until     int64    `json:"until"`
	CardSaid  hexBytes `json:"card_statement"`
	CardSign  hexBytes `json:"card_signed_bytes"`
	Card      hexBytes `json:"card"`
	CardSum   hexBytes `json:"card_sha256"`
	JoinSign  hexBytes `json:"join_signed_bytes"`
	Signature hexBytes `json:"join_signature"`
}

// vectorLetter goes between the devices of two joins.
type vectorLetter struct {
	From   string   `json:"from"`
	To     string   `json:"to"`
	ID     hexBytes `json:"id"`
	Time   int64    `json:"time"`
	Body   hexBytes `json:"body"`
	Said   hexBytes `json:"statement"`
	Sign   hexBytes `json:"signed_bytes"`
	Plain  hexBytes `json:"plain"`
	Info   hexBytes `json:"hpke_info"`
	Sealed hexBytes `json:"sealed"`
}

type vectorFrame struct {
	Name       string   `json:"name"`
	DecodeOnly bool     `json:"decode_only,omitempty"`
	Wire       hexBytes `json:"wire"`
	Op         uint8    `json:"op"`
	Number     uint64   `json:"number"`
	Device     hexBytes `json:"device"`
	Body       hexBytes `json:"body"`
	Extra      hexBytes `json:"extra"`
}

// vectorRefused is what a reader must not take; the plain letters are for alice.
type vectorRefused struct {
	Frames  []vectorBad `json:"frames"`
	Cards   []vectorBad `json:"cards"`
	Letters []vectorBad `json:"plain_letters"`
}

type vectorBad struct {
	Name string   `json:"name"`
	Wire hexBytes `json:"wire"`
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vectors) now() time.Time { return time.UnixMilli(v.At) }

func (v vectors) identity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Decode([]byte(v.Devices[name].PEM))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (v vectors) join(name string) vectorJoin {
	for _, j := range v.Joins {
		if j.Device == name {
			return j
		}
	}
	return vectorJoin{}
}

// must is for what makes vectors.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func makeDevice(id *identity.Identity) vectorDevice {
	d := vectorDevice{Device: id.DeviceID(), Account: id.AccountID().String(), Name: id.Name()}
	text := must(id.Encode())
	d.PEM = string(text)
	for _, c := range id.Peer().Chain() {
		d.Chain = append(d.Chain, c)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "PEERLINK DEVICE KEY" {
			d.Key = b.Bytes
		}
	}
	return d
}

// signedBytes is what a device's key signs.
func signedBytes(purpose string, msg []byte) []byte {
	return append([]byte("peerlink/"+purpose+"\x00"), msg...)
}

// statementOf takes the statement out of a signed one.
func statementOf(b []byte) []byte {
	var parts [][]byte
	if err := msgpack.Unmarshal(b, &parts); err != nil {
		panic(err)
	}
	return parts[0]
}

func makeJoin(name, host string, id *identity.Identity, now time.Time) vectorJoin {
	key := must(kem().GenerateKey())
	j := vectorJoin{
		Device: name, Host: host, Nonce: bytes.Repeat([]byte{0xa5, byte(len(name))}, nonceLen/2),
		KeyOpen: must(key.Bytes()), Key: key.PublicKey().Bytes(), Until: now.Add(cardLife).UnixMilli(),
	}
	j.Card = must(encodeCard(id, j.Key, now))
	sum := sha256.Sum256(j.Card)
	j.CardSum, j.CardSaid = sum[:], statementOf(j.Card)
	j.CardSign = signedBytes(cardPurpose, j.CardSaid)
	st := joinStatement(j.Nonce, sum, host)
	j.JoinSign, j.Signature = signedBytes(joinPurpose, st), must(id.Sign(joinPurpose, st))
	return j
}

func makeLetter(v vectors, from, to string, ids map[string]*identity.Identity, body []byte) vectorLetter {
	l := vectorLetter{From: from, To: to, ID: bytes.Repeat([]byte{byte(len(v.Letters) + 1)}, letterIDLen), Time: v.At, Body: body}
	dest := ids[to].DeviceID()
	l.Plain = must(sign(ids[from], letterPurpose, uint8(version), ids[from].Peer().Chain(), dest[:], []byte(l.ID), uint64(l.Time), body))
	l.Said, l.Info = statementOf(l.Plain), info(dest)
	l.Sign = signedBytes(letterPurpose, l.Said)
	pk := must(kem().NewPublicKey(v.join(to).Key))
	l.Sealed = must(hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), l.Info, l.Plain))
	return l
}

func makeVectors(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ids := map[string]*identity.Identity{
		"alice": must(identity.Generate("alice's laptop")),
		"bob":   must(identity.New("bob's browser", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))),
	}
	v := vectors{
		Comment: "What goes over a line to a switchboard (docs/protocol.md). Bytes are in hexadecimal. alice's keys are Ed25519, " +
			"bob's P-256. Check at unix_milli.",
		At: now.UnixMilli(), Devices: map[string]vectorDevice{},
	}
	for name, id := range ids {
		v.Devices[name] = makeDevice(id)
		v.Joins = append(v.Joins, makeJoin(name, "board.example:8443", id, now))
	}
	v.Letters = append(v.Letters, makeLetter(v, "alice", "bob", ids, []byte("call me")))
	v.Letters = append(v.Letters, makeLetter(v, "bob", "alice", ids, []byte("I shall")))
	v.Frames = makeFrames(v)
	v.Refused = makeRefused(v, ids)
	b := must(json.MarshalIndent(v, "", "  "))
	if err := os.WriteFile(vectorFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func makeFrames(v vectors) (out []vectorFrame) {
	a, b, bob := v.join("alice"), v.join("bob"), v.Devices["bob"].Device
	for _, f := range []struct {
		name string
		f    frame
	}{
		{"challenge", frame{op: opChallenge, body: a.Nonce}},
		{"join", frame{op: opJoin, body: a.Card, extra: a.Signature}},
		{"joined", frame{op: opJoined}},
		{"ask", frame{op: opAsk, number: 1, device: bob}},
		{"card", frame{op: opCard, number: 1, body: b.Card}},
		{"send", frame{op: opSend, number: 2, device: bob, body: v.Letters[0].Sealed, extra: b.CardSum}},
		{"taken", frame{op: opTaken, number: 2}},
		{"absent", frame{op: opAbsent, number: 300}},
		{"stale", frame{op: opStale, number: 1 << 16}},
		{"busy", frame{op: opBusy, number: 1 << 53}},
		{"letter", frame{op: opLetter, body: v.Letters[1].Sealed}},
	} {
		device := f.f.device[:]
		if f.f.device.IsZero() {
			device = nil
		}
		out = append(out, vectorFrame{f.name, false, must(f.f.encode()), uint8(f.f.op), f.f.number, device, f.f.body, f.f.extra})
	}
	longer := must(msgpack.Marshal([]any{uint8(opTaken), uint64(7), []byte{}, []byte{}, []byte{}, "new", []int{1, 2}}))
	wide := []byte{0x95, 0xcc, 7, 0xcf, 0, 0, 0, 0, 0, 0, 0, 7, 0xc4, 0, 0xc5, 0, 0, 0xc6, 0, 0, 0, 0}
	return append(out,
		vectorFrame{Name: "taken with elements of a later version", DecodeOnly: true, Wire: longer, Op: uint8(opTaken), Number: 7},
		vectorFrame{Name: "taken in longer forms", DecodeOnly: true, Wire: wide, Op: uint8(opTaken), Number: 7})
}

func makeRefused(v vectors, ids map[string]*identity.Identity) (r vectorRefused) {
	bad := func(to *[]vectorBad, name string, b []byte) { *to = append(*to, vectorBad{name, b}) }
	ok := must(frame{op: opTaken, number: 7}.encode())
	bad(&r.Frames, "nothing", nil)
	bad(&r.Frames, "four elements", must(msgpack.Marshal([]any{7, 7, []byte{}, []byte{}})))
	bad(&r.Frames, "bytes after the end", append(bytes.Clone(ok), 0xc0))
	bad(&r.Frames, "cut off", ok[:len(ok)-1])
	bad(&r.Frames, "device of 31 bytes", must(msgpack.Marshal([]any{7, 7, make([]byte, 31), []byte{}, []byte{}})))
	bad(&r.Frames, "text for bytes", must(msgpack.Marshal([]any{7, 7, "", []byte{}, []byte{}})))
	bad(&r.Frames, "number of 2^53 + 1", must(msgpack.Marshal([]any{7, uint64(1<<53 + 1), []byte{}, []byte{}, []byte{}})))
	bad(&r.Frames, "body that announces 4 GiB", []byte{0x95, 7, 7, 0xc4, 0, 0xc6, 0xff, 0xff, 0xff, 0xff})

	alice, bob, now := ids["alice"], ids["bob"], v.now()
	key := []byte(v.join("alice").Key)
	chain, until := alice.Peer().Chain(), uint64(v.At+cardLife.Milliseconds())
	cards := func(name, purpose string, values ...any) { bad(&r.Cards, name, must(sign(alice, purpose, values...))) }
	cards("of another purpose", letterPurpose, uint8(1), chain, key, until)
	cards("of version 2", cardPurpose, uint8(2), chain, key, until)
	cards("with another device's chain", cardPurpose, uint8(1), bob.Peer().Chain(), key, until)
	cards("without the account's certificate", cardPurpose, uint8(1), chain[:1], key, until)
	cards("with a key of 64 bytes", cardPurpose, uint8(1), chain, key[1:], until)
	cards("that has ended", cardPurpose, uint8(1), chain, key, uint64(v.At-1))
	cards("that lasts too long", cardPurpose, uint8(1), chain, key, uint64(now.Add(cardLife+maxSkew).UnixMilli()+1))

	to, id, body := alice.DeviceID(), []byte(v.Letters[1].ID), []byte("I shall")
	chain, far := bob.Peer().Chain(), bob.DeviceID()
	letters := func(name, purpose string, values ...any) {
		bad(&r.Letters, name, must(sign(bob, purpose, values...)))
	}
	letters("of another purpose", cardPurpose, uint8(1), chain, to[:], id, uint64(v.At), body)
	letters("for another device", letterPurpose, uint8(1), chain, far[:], id, uint64(v.At), body)
	letters("from before", letterPurpose, uint8(1), chain, to[:], id, uint64(v.At-30_001), body)
	letters("from later", letterPurpose, uint8(1), chain, to[:], id, uint64(v.At+30_001), body)
	letters("with an id of 15 bytes", letterPurpose, uint8(1), chain, to[:], id[1:], uint64(v.At), body)
	letters("with another device's chain", letterPurpose, uint8(1), alice.Peer().Chain(), to[:], id, uint64(v.At), body)
	letters("with a body that is too long", letterPurpose, uint8(1), chain, to[:], id, uint64(v.At), make([]byte, MaxMessageLen+1))
	flipped := bytes.Clone(v.Letters[1].Plain)
	flipped[len(flipped)-1] ^= 1
	bad(&r.Letters, "with a damaged signature", flipped)
	return r
}

// The vectors bind other implementations: what changes here changes the protocol.
func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	v := readVectors(t)
	if len(v.Joins) != 2 || len(v.Letters) != 2 || len(v.Frames) < 11 {
		t.Fatalf("%d joins, %d letters, %d frames", len(v.Joins), len(v.Letters), len(v.Frames))
	}
	for name, d := range v.Devices {
		if got := makeDevice(v.identity(t, name)); got.Device != d.Device || got.Account != d.Account || !bytes.Equal(got.Key, d.Key) {
			t.Errorf("%s is %s of %s", name, got.Device, got.Account)
		}
	}
	for _, j := range v.Joins {
		t.Run("join of "+j.Device, func(t *testing.T) { checkJoin(t, v, j) })
	}
	for _, l := range v.Letters {
		t.Run("letter to "+l.To, func(t *testing.T) { checkLetter(t, v, l) })
	}
	for _, f := range v.Frames {
		t.Run("frame "+f.Name, func(t *testing.T) { checkFrame(t, f) })
	}
}

func checkJoin(t *testing.T, v vectors, j vectorJoin) {
	id := v.identity(t, j.Device)
	c, err := decodeCard(j.Card, v.now())
	if err != nil || c.peer.Device != v.Devices[j.Device].Device || !bytes.Equal(c.key, j.Key) || !bytes.Equal(c.sum[:], j.CardSum) {
		t.Errorf("card: %+v, %v", c, err)
	}
	made, err := encodeCard(id, j.Key, v.now())
	if err != nil || !bytes.Equal(statementOf(made), j.CardSaid) || !bytes.Equal(statementOf(j.Card), j.CardSaid) {
		t.Errorf("the statement is another one: %x, %v", made, err)
	}
	if !bytes.Equal(j.CardSign, signedBytes(cardPurpose, j.CardSaid)) {
		t.Error("other bytes are signed")
	}
	key, err := kem().NewPrivateKey(j.KeyOpen)
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), j.Key) {
		t.Errorf("the line's key: %v", err)
	}
	st := joinStatement(j.Nonce, c.sum, j.Host)
	if !bytes.Equal(j.JoinSign, signedBytes(joinPurpose, st)) {
		t.Errorf("the join signs %x", st)
	}
	if err := c.peer.Verify(joinPurpose, st, j.Signature); err != nil {
		t.Error(err)
	}
}

func checkLetter(t *testing.T, v vectors, l vectorLetter) {
	me := v.Devices[l.To].Device
	key, err := kem().NewPrivateKey(v.join(l.To).KeyOpen)
	if err != nil {
		t.Fatal(err)
	}
	got, err := openLetter(me, key, l.Sealed, v.now())
	if err != nil || got.from.Device != v.Devices[l.From].Device || !bytes.Equal(got.id[:], l.ID) || !bytes.Equal(got.body, l.Body) {
		t.Errorf("sealed: %+v, %v", got, err)
	}
	if got, err := decodeLetter(me, l.Plain, v.now()); err != nil || !bytes.Equal(got.body, l.Body) {
		t.Errorf("plain: %+v, %v", got, err)
	}
	made, err := sign(v.identity(t, l.From), letterPurpose, uint8(version), v.identity(t, l.From).Peer().Chain(), me[:], []byte(l.ID), uint64(l.Time), []byte(l.Body))
	if err != nil || !bytes.Equal(statementOf(made), l.Said) || !bytes.Equal(l.Sign, signedBytes(letterPurpose, l.Said)) || !bytes.Equal(l.Info, info(me)) {
		t.Errorf("made now: %x, %v", made, err)
	}
}

func checkFrame(t *testing.T, v vectorFrame) {
	f, err := decodeFrame(v.Wire)
	if err != nil || uint8(f.op) != v.Op || f.number != v.Number || !bytes.Equal(f.body, v.Body) || !bytes.Equal(f.extra, v.Extra) {
		t.Fatalf("%+v, %v", f, err)
	}
	if want := (identity.DeviceID{}); len(v.Device) == 0 && f.device != want || len(v.Device) > 0 && !bytes.Equal(f.device[:], v.Device) {
		t.Errorf("device %s", f.device)
	}
	if b, err := f.encode(); !v.DecodeOnly && (err != nil || !bytes.Equal(b, v.Wire)) {
		t.Errorf("written as %x, %v", b, err)
	}
}

// fault: A1, A2, D1, E1
func TestVectorsOfWhatIsRefused(t *testing.T) {
	v := readVectors(t)
	alice := v.Devices["alice"].Device
	for _, b := range v.Refused.Frames {
		if f, err := decodeFrame(b.Wire); err == nil {
			t.Errorf("frame %s: %+v", b.Name, f)
		}
	}
	for _, b := range v.Refused.Cards {
		if c, err := decodeCard(b.Wire, v.now()); err == nil {
			t.Errorf("card %s: %+v", b.Name, c)
		}
	}
	for _, b := range v.Refused.Letters {
		if l, err := decodeLetter(alice, b.Wire, v.now()); err == nil {
			t.Errorf("letter %s: %+v", b.Name, l)
		}
	}
	if len(v.Refused.Frames) < 8 || len(v.Refused.Cards) < 7 || len(v.Refused.Letters) < 8 {
		t.Error("vectors are missing")
	}
}
