package parcel

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// case: S19
// A sender learns nothing of files that it has not sent itself: neither by a
// question for its sum, nor by the name that its file got.
func TestASenderLearnsNothingOfWhatOthersHaveHere(t *testing.T) {
	h := byHand(t, Config{}).offered(3, 15)
	for _, name := range []string{"secret", "x"} {
		if err := os.WriteFile(filepath.Join(h.r.dir, name), []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replies := map[string][]byte{}
	for i, name := range []string{"secret", "absent"} {
		h.send(kindEntry, file(uint64(i), 5, name)...)
		replies[name] = h.expect(kindWant)[2:]
	}
	if !bytes.Equal(replies["secret"], replies["absent"]) {
		t.Errorf("they are told apart: %x", replies)
	}
	h.send(kindEntry, file(2, 5, "x")...)
	h.expect(kindWant)
	h.send(kindStart, uint64(2), uint64(0))
	h.piece([]byte("hello"), sumOf([]byte("hello")))
	if kept := h.expect(kindKept); bytes.Contains(kept, []byte("(1)")) {
		t.Errorf("the name tells of another: %q", kept)
	}
	h = h.again().offered(1, 5) // but what it has sent itself is compared
	h.send(kindEntry, file(0, 5, "x")...)
	h.expect(kindCompare)
	sum := sumOf([]byte("hello"))
	h.send(kindDigest, uint64(0), sum[:])
	h.expect(kindKept)
	if err := os.WriteFile(filepath.Join(h.r.dir, "x"), []byte("olleh"), 0o600); err != nil { // its owner's
		t.Fatal(err)
	}
	os.Remove(filepath.Join(h.r.dir, "x (1)"))
	h = h.again().offered(1, 5)
	h.send(kindEntry, file(0, 5, "x")...)
	h.expect(kindCompare)
	sum = sumOf([]byte("olleh"))
	h.send(kindDigest, uint64(0), sum[:])
	h.expect(kindWant)
}

// case: S19
// Whether something of a name is here does not change the answer to an offer that
// has no room.
func TestTheRoomIsAskedForAlikeWhateverIsHere(t *testing.T) {
	h := byHand(t, Config{MaxBytes: 1 << 62})
	if err := os.WriteFile(filepath.Join(h.r.dir, "x"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.send(kindOffer, offer{id: [16]byte{1}, entries: 1, bytes: 1 << 61, names: []string{"x"}}.elems()...)
	if why := h.expect(kindAnswer); !bytes.Contains(why, []byte("not enough disk space")) {
		t.Errorf("the sender is told %q", why)
	}
}

// case: S16
func TestEntriesOfAnOfferAreBounded(t *testing.T) {
	r := NewReceiver(Config{})
	small := NewReceiver(Config{MaxBytes: 1000})
	member, stranger := Peer{ID: "bob", Member: true}, Peer{ID: "mallory"}
	for _, c := range []struct {
		r       *Receiver
		from    Peer
		entries uint64
		bytes   uint64
		want    string
	}{
		{r, member, 100_000, 1 << 30, ""}, // an ordinary large tree
		{r, member, 200_000, 1 << 30, ""},
		{r, member, 200_001, 0, "--max-files"},
		{r, member, maxSize, 0, "--max-files"},
		{r, stranger, 50_000, 1 << 30, ""},
		{r, stranger, 50_001, 0, "--max-files"},
		{small, member, 1, 1000, ""},
		{small, member, 1, 1001, "at most 1000 are taken"},
		{small, member, 16, 0, ""},
		{small, member, 17, 0, "at most 1000 are taken"},
	} {
		err := c.r.bounds(c.from, offer{entries: c.entries, bytes: c.bytes, names: []string{"x"}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d entries of %s: %v, want %q", c.entries, c.from.ID, err, c.want)
		}
	}
}

// case: S16
// Empty folders, and the folders above a file, are counted over all offers. What
// strangers have used up is not missing to a member.
func TestWhatSendersMakeIsBoundedOverAllOffers(t *testing.T) {
	r := newReceiver(t, Config{MaxEntries: 80})
	inodes := func() (n int) { return len(listing(t, r.dir)) }
	deep := strings.Split("a/b/c/d/e/f/g/h/i/j", "/")
	for key := range 20 {
		from := Peer{ID: fmt.Sprint(key)}
		for range 3 {
			h := &hand{t, nil, r}
			h.w = h.from(from)
			h.offered(12, 100)
			for i := range 12 {
				e := entry{path: append([]string{fmt.Sprint(from.ID, i)}, deep...), folder: i%2 == 0}
				if !e.folder {
					e.size = 5
				}
				_ = h.gives(numberedAs(e, i), []byte("hello")[:e.size])
			}
			h.send(kindEnd)
		}
		if n := inodes(); key == 0 && n > 40 || n > 80 {
			t.Fatalf("%d files and folders after %d keys", n, key+1)
		}
	}
	if n := inodes(); n < 40 {
		t.Errorf("%d files and folders are much fewer than allowed", n)
	}
	h := &hand{t, nil, r}
	h.w = h.from(Peer{ID: "late"})
	h.offered(20, 0)
	var why string
	for i := range 20 { // what is left is less than one of the others was
		why = h.gives(entry{index: uint64(i), path: []string{fmt.Sprint("late", i)}, folder: true}, nil)
	}
	if !strings.Contains(why, "--max-files") || inodes() > 80 {
		t.Errorf("a late stranger is told %q; %d files and folders", why, inodes())
	}
	h.w = h.from(Peer{ID: "bob", Member: true})
	h.offered(80, 100)
	for i := range 80 {
		if why := h.gives(entry{index: uint64(i), path: []string{fmt.Sprint("bob", i)}, folder: true}, nil); why != "" {
			t.Fatalf("a member is told %q", why)
		}
	}
}

// from opens a channel of a peer to the receiver.
func (h *hand) from(p Peer) *wire {
	c, _ := h.r.openAs(p)
	h.t.Cleanup(func() { c.Close() })
	return newWire(c)
}
