package chat

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/messages.json")

// vectors are messages as they are on the wire: length and JSON. The page's
// library reads the same file.
type vectors struct {
	Letters  []letterVector  `json:"letters"`
	Receipts []receiptVector `json:"receipts"`
	Bad      []string        `json:"bad"` // bodies that are neither
}

type letterVector struct {
	letter
	Frame string `json:"frame"`
}

type receiptVector struct {
	ID    string `json:"id"`
	Why   string `json:"why"`
	Frame string `json:"frame"`
}

func framed(b []byte) string {
	return hex.EncodeToString(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
}

func makeVectors(t *testing.T) (v vectors) {
	t.Helper()
	id := [idLen]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for _, text := range []string{"hello", "two\nlines", `"quoted"`, "日本 🙂", "\x1b[2J"} {
		b, err := encode(Message{ID: id, At: time.UnixMilli(1_700_000_000_000), Text: text})
		if err != nil {
			t.Fatal(err)
		}
		v.Letters = append(v.Letters, letterVector{letter{hexOf(id), 1_700_000_000_000, text}, framed(b)})
	}
	for _, r := range []receipt{{Ack: hexOf(id)}, {No: hexOf(id), Why: "no room"}} {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		v.Receipts = append(v.Receipts, receiptVector{hexOf(id), r.Why, framed(b)})
	}
	v.Bad = []string{
		``, `[]`, `{}`, `null`, `7`, `{"id":"00"}`, `{"id":"000102030405060708090a0b0c0d0e0g"}`, `{"id":7}`, `{"ack":"000102030405060708090a0b0c0d0e"}`, `{} {}`,
		`{"id":"000102030405060708090a0b0c0d0e0f","at":1.5,"text":"x"}`, `{"id":"000102030405060708090a0b0c0d0e0f","at":1,"text":7}`,
	}
	return v
}

func TestMessagesAreThoseOfTheProtocol(t *testing.T) {
	want := makeVectors(t)
	text, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/messages.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err = os.ReadFile("testdata/messages.json"); err != nil {
		t.Fatal(err)
	}
	var golden vectors
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(golden, want) {
		t.Error("testdata/messages.json has others")
	}
	body := func(frame string) []byte {
		b, err := hex.DecodeString(frame)
		if err != nil || len(b) < 4 || !bytes.Equal(b[:4], binary.BigEndian.AppendUint32(nil, uint32(len(b)-4))) {
			t.Fatalf("%s: %v", frame, err)
		}
		return b[4:]
	}
	for _, v := range golden.Letters {
		m, err := decode(body(v.Frame))
		if err != nil || hexOf(m.ID) != v.ID || m.Text != v.Text || m.At.UnixMilli() != v.At {
			t.Errorf("%s: %+v, %v", v.Frame, m, err)
		}
	}
	for _, v := range golden.Receipts {
		id, why, err := decodeReceipt(body(v.Frame))
		if err != nil || hexOf(id) != v.ID || why != v.Why {
			t.Errorf("%s: %x, %q, %v", v.Frame, id, why, err)
		}
	}
	for _, b := range golden.Bad {
		if m, err := decode([]byte(b)); err == nil {
			t.Errorf("%s is a letter: %+v", b, m)
		}
		if id, _, err := decodeReceipt([]byte(b)); err == nil {
			t.Errorf("%s is a receipt for %x", b, id)
		}
	}
}
