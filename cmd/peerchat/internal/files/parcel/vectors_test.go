package parcel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"reflect"
	"testing"

	"peerlink/cmd/peerchat/internal/files/digest"
)

var update = flag.Bool("update", false, "write testdata/frames.json anew")

// vector is a frame, in words and in bytes.
type vector struct {
	Name  string `json:"name"`
	Frame string `json:"frame"`
}

// message is a frame with what reads it back.
type message struct {
	name string
	kind kind
	want []any
	read func(w *wire, n int) (any, error)
}

func messages() []message {
	sum := sumOf([]byte("hello"))
	o := offer{version: version, id: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, entries: 2, bytes: 5, names: []string{"tree"}}
	told := o
	told.lists = true
	e := entry{index: 1, path: []string{"tree", "é.txt"}, size: 5, modified: 1_700_000_000_000, executable: true}
	m := want{index: 1, offset: 65536, sum: sum}
	index := func(w *wire, n int) (any, error) { return w.readIndex(n) }
	reason := func(w *wire, n int) (any, error) {
		i, why, err := w.readReason(n)
		return []any{i, why}, err
	}
	raw := func(k int) func(w *wire, n int) (any, error) {
		return func(w *wire, n int) (any, error) { return nil, w.fields(n, k).done() }
	}
	return []message{
		{"nothing", kindNothing, []any{}, nil},
		{"offer", kindOffer, o.elems(), func(w *wire, n int) (any, error) {
			got, err := w.readOffer(n)
			return same(got, o), err
		}},
		{"offer: entries are told when asked", kindOffer, told.elems(), func(w *wire, n int) (any, error) {
			got, err := w.readOffer(n)
			return same(got, told), err
		}},
		{"list", kindList, []any{}, raw(0)},
		{"answer: yes", kindAnswer, []any{true, ""}, raw(2)},
		{"answer: no", kindAnswer, []any{false, "not wanted"}, raw(2)},
		{"entry: a folder", kindEntry, entry{path: []string{"tree"}, folder: true}.elems(), raw(6)},
		{"entry: a file", kindEntry, e.elems(), func(w *wire, n int) (any, error) {
			got, err := w.readEntry(n)
			return same(got, e), err
		}},
		{"compare", kindCompare, []any{uint64(1)}, index},
		{"digest", kindDigest, []any{uint64(1), sum[:]}, index},
		{"want: all", kindWant, want{index: 1}.elems(), func(w *wire, n int) (any, error) {
			got, err := w.readWant(n)
			return same(got, want{index: 1}), err
		}},
		{"want: the rest", kindWant, m.elems(), func(w *wire, n int) (any, error) {
			got, err := w.readWant(n)
			return same(got, m), err
		}},
		{"start", kindStart, []any{uint64(1), uint64(65536)}, index},
		{"broken", kindBroken, []any{uint64(1), "it changed"}, reason},
		{"kept", kindKept, []any{uint64(1), "tree/é (1).txt", false}, reason},
		{"failed", kindFailed, []any{uint64(1), "not enough disk space"}, reason},
		{"end", kindEnd, []any{}, raw(0)},
	}
}

func same(got, want any) string {
	if reflect.DeepEqual(got, want) {
		return ""
	}
	return "another"
}

// vectors are the frames of docs/protocol.md; the piece is the last, whole.
func vectors(t *testing.T) (vs []vector) {
	for _, m := range messages() {
		b, err := encode(m.kind, m.want)
		if err != nil {
			t.Fatal(err)
		}
		vs = append(vs, vector{m.name, hex.EncodeToString(b)})
	}
	sum := sumOf([]byte("hello"))
	b := binary.BigEndian.AppendUint32(nil, 5+digest.Size)
	b = append(append(append(b, byte(kindPiece)), "hello"...), sum[:]...)
	return append(vs, vector{"piece: hello", hex.EncodeToString(b)})
}

func TestFramesAreThoseOfTheProtocol(t *testing.T) {
	vs := vectors(t)
	if *update {
		b, _ := json.MarshalIndent(vs, "", "  ")
		if err := os.WriteFile("testdata/frames.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []vector
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(golden, vs) {
		t.Error("testdata/frames.json has others")
	}
	for i, m := range messages() {
		frame, _ := hex.DecodeString(golden[i].Frame)
		w := newWire(dummy{Reader: bytes.NewReader(frame)})
		k, n, err := w.next()
		if m.read == nil { // it is skipped
			if err != io.EOF {
				t.Errorf("%s: %v", m.name, err)
			}
			continue
		}
		if err != nil || k != m.kind || n != len(frame)-headLen {
			t.Fatalf("%s: kind %d of %d bytes, %v", m.name, k, n, err)
		}
		if got, err := m.read(w, n); err != nil || got == "another" {
			t.Errorf("%s: read as %v, %v", m.name, got, err)
		}
	}
}

// dummy is a channel that has only something to read.
type dummy struct {
	io.Reader
	*scripted
}

func (d dummy) Read(p []byte) (int, error) { return d.Reader.Read(p) }

var _ net.Conn = dummy{}

func FuzzMessages(f *testing.F) {
	for _, m := range messages() {
		b, _ := encode(m.kind, m.want)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for read := range 5 {
			w := newWire(dummy{Reader: bytes.NewReader(b)})
			for {
				k, n, err := w.next()
				if err != nil {
					break
				}
				if k == kindPiece {
					if n > maxPiece+digest.Size {
						t.Fatal("a piece that is too long")
					}
					_, err = w.br.Discard(n)
				} else {
					err = readAs(w, n, read)
				}
				if err != nil {
					break
				}
			}
		}
	})
}

func readAs(w *wire, n, how int) (err error) {
	switch how {
	case 0:
		_, err = w.readOffer(n)
	case 1:
		_, err = w.readEntry(n)
	case 2:
		_, err = w.readWant(n)
	case 3:
		_, _, err = w.readReason(n)
	default:
		f := w.fields(n, 2)
		f.Uint(maxSize)
		f.sum()
		err = f.done()
	}
	return err
}
