package chat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/identity"
)

func dev(n byte) identity.DeviceID { return identity.DeviceID{1, n} }

func put(t *testing.T, s *Store, peer identity.DeviceID, n byte, mine bool) Message {
	t.Helper()
	m, added, err := s.add(Message{Peer: peer, ID: [idLen]byte{n, 1}, Mine: mine, Text: fmt.Sprint("text ", n), At: time.UnixMilli(1000 + int64(n))}, member)
	if err != nil || !added {
		t.Fatalf("message %d: %v, %v", n, added, err)
	}
	return m
}

func TestHistoryOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a %3f?#.db")
	s := openAt(t, path)
	for n := range byte(5) {
		put(t, s, dev(1), n, n%2 == 0)
	}
	put(t, s, dev(2), 9, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	s = openAt(t, path)
	all, err := s.History(dev(1), 0, 100)
	if err != nil || len(all) != 5 || all[0].Text != "text 0" || all[4].Text != "text 4" || !all[4].At.Equal(time.UnixMilli(1004)) {
		t.Fatalf("%v, %v", all, err)
	}
	page, err := s.History(dev(1), all[3].Seq, 2)
	if err != nil || len(page) != 2 || page[0].Seq != all[1].Seq || page[1].Seq != all[2].Seq {
		t.Errorf("%v, %v", page, err)
	}
	if err := s.Seen(dev(1), all[1].Seq); err != nil {
		t.Fatal(err)
	}
	cs, err := s.Conversations()
	if err != nil || len(cs) != 2 || cs[0].Peer != dev(2) || cs[0].Unread != 1 || cs[1].Unread != 1 {
		t.Errorf("%v, %v", cs, err)
	}
}

// fault: I3
func TestAMessageIsStoredOnce(t *testing.T) {
	s := store(t)
	m := put(t, s, dev(1), 1, false)
	for range 3 {
		if _, added, err := s.add(m, stranger); added || err != nil {
			t.Fatalf("%v, %v", added, err)
		}
	}
	put(t, s, dev(2), 1, false) // another sender may choose the same id
	if all, err := s.History(dev(1), 0, 10); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestWhatWaitsIsBounded(t *testing.T) {
	s := store(t)
	tx, err := s.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.begin(tx, dev(1), member); err != nil {
		t.Fatal(err)
	}
	peer := dev(1)
	for i := range MaxWaiting {
		if _, err := tx.Exec("INSERT INTO messages (peer, id, mine, text, at, mark) VALUES (?, ?, 1, 'x', 0, 0)", peer[:], fmt.Appendf(nil, "%016d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.add(Message{Peer: peer, ID: [idLen]byte{1}, Mine: true, Text: "one more"}, member)
	if !errors.Is(err, ErrFull) {
		t.Fatalf("%v", err)
	}
	if err := s.mark(1, Delivered, ""); err != nil {
		t.Fatal(err)
	}
	if _, added, err := s.add(Message{Peer: peer, ID: [idLen]byte{1}, Mine: true, Text: "one more"}, member); !added || err != nil {
		t.Fatalf("%v, %v", added, err)
	}
}

func TestTheOldestGoBeforeADiskIsFull(t *testing.T) {
	s := store(t)
	waits := put(t, s, dev(1), 1, true)
	large := strings.Repeat("x", MaxText)
	s.shares[member].bytes = 2 << 20
	most := s.shares[member].bytes
	for i := range most/MaxText + 20 {
		m := Message{Peer: dev(1), Text: large}
		copy(m.ID[:], fmt.Sprintf("%016d", i))
		if _, _, err := s.add(m, member); err != nil {
			t.Fatal(err)
		}
	}
	var bytes int64
	if err := s.db.QueryRow("SELECT sum(length(text)) FROM messages").Scan(&bytes); err != nil || bytes > most || bytes < most/2 {
		t.Errorf("%d bytes are kept, %v", bytes, err)
	}
	if left, err := s.waiting(dev(1), 10); err != nil || len(left) != 1 || left[0].Seq != waits.Seq {
		t.Errorf("what waits to be sent: %v, %v", left, err)
	}
}

// fault: I2
func TestDamagedHistoryIsMovedAsideAndSaidSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	s := openAt(t, path)
	for n := range byte(200) {
		put(t, s, dev(1), n, false)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ { // all but the first page
		b[i] = 0xa5
	}
	for name, text := range map[string][]byte{"damaged": b, "no database": []byte(strings.Repeat("hello", 5000))} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(s.Note(), path+".damaged-") {
			t.Errorf("%s: the note is %q", name, s.Note())
		}
		put(t, s, dev(1), 1, false)
		_ = s.Close()
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) == 0 {
			t.Errorf("%s: it was not kept", name)
		}
	}
}

// fault: I2
func TestNewerHistoryIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	s := openAt(t, path)
	if _, err := s.db.Exec("PRAGMA user_version = 2"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(path); !errors.Is(err, ErrNewer) {
		t.Errorf("%v", err)
	}
}

func FuzzLetters(f *testing.F) {
	b, _ := encode(Message{Text: "hello", At: time.UnixMilli(1)})
	f.Add(b)
	f.Add([]byte(`{"ack":"00000000000000000000000000000000"}`))
	f.Add([]byte(`{"id":"00","at":1e30,"text":"\ud800"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decode(b); err == nil {
			again, err := encode(m)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := decode(again); err != nil || n != m {
				t.Fatalf("%+v became %+v, %v", m, n, err)
			}
		}
		if _, why, err := decodeReceipt(b); err == nil && len(why) > 3*maxReason {
			t.Fatalf("a reason of %d bytes", len(why))
		}
	})
}
