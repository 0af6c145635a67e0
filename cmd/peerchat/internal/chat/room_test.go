package chat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink"
	"peerlink/identity"
)

// crowd is the n-th of many devices.
func crowd(n int) (id identity.DeviceID) {
	binary.BigEndian.PutUint32(id[:], 1<<31|uint32(n))
	return id
}

// said is a message with a random id.
func said(peer identity.DeviceID, text string) Message {
	m := Message{Peer: peer, Text: text}
	binary.BigEndian.PutUint64(m.ID[:], rand.Uint64())
	return m
}

func hear(t *testing.T, s *Store, peer identity.DeviceID, by standing, text string) {
	t.Helper()
	if _, added, err := s.add(said(peer, text), by); !added || err != nil {
		t.Fatal(added, err)
	}
}

// disk returns how large the database's files are.
func disk(t *testing.T, path string) (size int64) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		st, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	return size
}

// long is a text of which few fill the share of strangers in a test.
var long = strings.Repeat("x", 12<<10)

// full is a store with small shares that 100 strangers have filled.
func full(t *testing.T) (s *Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "chat.db")
	s = openAt(t, path)
	s.shares = [...]share{
		member:   {messages: 100, bytes: 1 << 20, conversations: 3, all: 2 << 20},
		stranger: {messages: 8, bytes: 64 << 10, conversations: 32, all: 256 << 10},
	}
	hear(t, s, dev(9), stranger, "few words")
	for i := range 100 {
		hear(t, s, crowd(i), stranger, long)
	}
	return s, path
}

// used is what a share holds.
func used(t *testing.T, s *Store, of standing) (conversations, bytes int64) {
	t.Helper()
	if err := s.db.QueryRow("SELECT count(*), coalesce(sum(bytes + ? * n), 0) FROM conversations WHERE stranger = ?", rowBytes, of).Scan(&conversations, &bytes); err != nil {
		t.Fatal(err)
	}
	return conversations, bytes
}

// case: S7
func TestStrangersDoNotTakeTheRoomOfContacts(t *testing.T) {
	s, path := full(t)
	limit := s.shares[stranger]
	if n, bytes := used(t, s, stranger); n > limit.conversations || n < limit.conversations/4 || bytes > limit.all || bytes < limit.all/2 {
		t.Errorf("strangers have %d conversations and %d bytes, want at most %d and %d", n, bytes, limit.conversations, limit.all)
	}
	for range 20 {
		hear(t, s, dev(1), member, strings.Repeat("c", MaxText/2))
	}
	m := said(dev(2), "mine")
	m.Mine = true
	if _, added, err := s.add(m, member); !added || err != nil {
		t.Errorf("this device's own message: %v, %v", added, err)
	}
	if got := texts(t, s, dev(1)); len(got) != 20 {
		t.Errorf("%d messages of a contact are kept, want 20", len(got))
	}
	before := disk(t, path)
	for i := range 60 { // what is dropped makes room for what comes
		hear(t, s, crowd(i), stranger, long)
	}
	if after := disk(t, path); after > before+1<<20 { // the journal
		t.Errorf("the files had %d bytes, and have %d", before, after)
	}
}

// A few words are not worth less than many of one that came later.
// case: S7
func TestTheLongestConversationOfStrangersGivesWayFirst(t *testing.T) {
	s, _ := full(t)
	s.shares[stranger].conversations = 1000
	hear(t, s, dev(9), stranger, "hello?")
	for i := range 30 {
		hear(t, s, crowd(i%4), stranger, long)
	}
	if got := texts(t, s, dev(9)); len(got) == 0 || got[len(got)-1] != "hello?" {
		t.Errorf("a stranger of few words has %q left", got)
	}
}

// case: S7
func TestWhatContactsHaveSaidIsNoStrangers(t *testing.T) {
	s, _ := full(t)
	for _, peer := range []identity.DeviceID{dev(1), dev(2), dev(3)} {
		hear(t, s, peer, stranger, "before")
	}
	hear(t, s, dev(1), member, "now a contact's") // as a message tells
	s.known = func(id identity.DeviceID) bool { return id == dev(2) }
	s.shares[stranger].conversations = 8
	for i := range 10 {
		hear(t, s, crowd(200+i), stranger, long)
	}
	if got := fmt.Sprint(texts(t, s, dev(1)), texts(t, s, dev(2)), texts(t, s, dev(3))); got != "[before now a contact's] [before] []" {
		t.Errorf("left are %s", got)
	}
	m := said(dev(9), "an answer")
	m.Mine = true
	if _, _, err := s.add(m, stranger); err != nil { // by itself, as listen --reply
		t.Fatal(err)
	}
	if n, _ := used(t, s, member); n != 2 {
		t.Errorf("%d conversations are members', want 2", n)
	}
	if m = said(crowd(209), "by hand"); true {
		m.Mine = true
	}
	if _, _, err := s.add(m, member); err != nil {
		t.Fatal(err)
	}
	hear(t, s, crowd(209), stranger, "and its answer") // which takes nothing back
	if n, _ := used(t, s, member); n != 3 {
		t.Errorf("%d conversations are members', want 3", n)
	}
}

// Full is not for good, and what was said with some can be deleted.
// case: S7
func TestDeletingGivesRoomBack(t *testing.T) {
	s, path := full(t)
	for n := range byte(3) {
		hear(t, s, dev(n), member, strings.Repeat("m", MaxText))
	}
	if _, _, err := s.add(said(dev(4), "one more contact"), member); !errors.Is(err, ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
	hear(t, s, dev(1), member, "the contacts that are there go on")
	if n, err := s.Delete(dev(1), dev(7)); n != 2 || err != nil {
		t.Errorf("%d messages were deleted, %v; want 2", n, err)
	}
	hear(t, s, dev(4), member, "and now there is room")
	s.known = func(id identity.DeviceID) bool { return id == crowd(99) }
	hear(t, s, crowd(99), stranger, ".")
	before := disk(t, path)
	if n, err := s.DeleteStrangers(); n < 10 || err != nil {
		t.Errorf("%d messages of strangers were deleted, %v", n, err)
	}
	if n, _ := used(t, s, stranger); n != 1 {
		t.Errorf("%d conversations of strangers are left, want that of one that is known", n)
	}
	if after := disk(t, path); after > before-s.shares[stranger].all/2 {
		t.Errorf("the files had %d bytes, and have %d", before, after)
	}
}

// A row costs room as a text does: many short messages do not fill a disk.
// case: S7
func TestRoomCountsWhatTheDiskHas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	s := openAt(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	tx, err := s.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	peer := dev(1)
	for i := range n {
		m := said(peer, ".")
		if _, err := tx.Exec("INSERT INTO messages (peer, id, mine, text, at, mark) VALUES (?, ?, 0, '.', ?, 0)", peer[:], m.ID[:], 1_700_000_000_000+i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tx.Commit(), s.Close()); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if each := st.Size() / n; each > rowBytes || each < rowBytes/2 {
		t.Errorf("a message of one byte has %d bytes on the disk, and is counted as %d", each, rowBytes)
	}
}

// A database from before strangers had a share of their own.
// case: S7
func TestAnOlderDatabaseIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	s := openAt(t, path)
	hear(t, s, dev(1), member, "from one that was never answered")
	put(t, s, dev(2), 1, false)
	put(t, s, dev(2), 2, true)
	if _, err := s.db.Exec("ALTER TABLE conversations DROP COLUMN stranger"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, path)
		m, _ := used(t, s, member)
		if n, _ := used(t, s, stranger); n != 1 || m != 1 || len(texts(t, s, dev(2))) != 2 {
			t.Errorf("%d members and %d strangers, want one each", m, n)
		}
	}
}

// dial opens a channel for messages, and gives its raw end as well.
func dial(t *testing.T, from, to *person) (*peerlink.Messages, io.ReadWriteCloser) {
	t.Helper()
	conn, err := from.m.ConnectDevice(t.Context(), to.device(), URI, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return peerlink.NewMessages(conn), conn
}

// case: S4
func TestTheLengthOfAMessageIsBoundedBeforeItIsRead(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	service(t, store(t), bob)
	link(t, alice, bob)
	_, conn := dial(t, alice, bob)
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, maxFrame+1)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("an announced message that is too long is waited for")
	}
	ms, _ := dial(t, alice, bob) // the longest that there is
	m := said(bob.device(), strings.Repeat("\x01", MaxText))
	b, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := ms.Send(b); err != nil {
		t.Fatal(err)
	}
	r, err := ms.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if id, why, err := decodeReceipt(r); err != nil || id != m.ID || why != "" {
		t.Errorf("%s: %v", r, err)
	}
}

// Strangers take all the places that they can have and say nothing; a contact's
// message arrives meanwhile. When they have gone, others have their places.
// case: S4 S12
func TestPlacesOfStrangersAreApart(t *testing.T) {
	bob, carol := newPerson(t, "bob"), newPerson(t, "carol")
	bs := store(t)
	b, err := New(Config{Store: bs, Net: bob.m, Member: func(p identity.Peer) bool { return p.Device == carol.device() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	arrivals := b.Events(t.Context())
	var held []io.Closer
	var last *person
	for i := range strangersAll/strangersEach + 10 {
		last = newPerson(t, fmt.Sprint("stranger ", i))
		link(t, last, bob)
		for range strangersEach + 1 {
			_, conn := dial(t, last, bob)
			held = append(held, conn)
		}
	}
	_, conn := dial(t, last, bob)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger without a place is heard")
	}
	if _, n := b.places.Used(); n != strangersAll {
		t.Errorf("strangers have %d places, want %d", n, strangersAll)
	}
	link(t, carol, bob)
	c := service(t, store(t), carol)
	if _, err := c.Send(bob.device(), "from a contact"); err != nil {
		t.Fatal(err)
	}
	if m := await(t, arrivals, func(Message) bool { return true }); m.Text != "from a contact" {
		t.Errorf("%+v", m)
	}
	for _, c := range held {
		_ = c.Close()
	}
	s := service(t, store(t), last)
	if _, err := s.Send(bob.device(), "from a stranger"); err != nil {
		t.Fatal(err)
	}
	await(t, arrivals, func(m Message) bool { return m.Text == "from a stranger" })
}
