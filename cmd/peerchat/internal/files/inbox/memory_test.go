package inbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// reopened is the folder dir, with a memory, as a process that starts finds it.
func reopened(t *testing.T, dir, memory string) *Folder {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Remember(memory); err != nil {
		t.Fatal(err)
	}
	return f
}

// case: S19
func TestWhatASenderHasSentIsKnownOfItAlone(t *testing.T) {
	dir, memory := t.TempDir(), filepath.Join(t.TempDir(), "received")
	a, b := sumOf([]byte("hello")), sumOf([]byte("olleh"))
	f := reopened(t, dir, memory)
	f.note(Claim{Owner: "alice"}, "d/x", 5, a)
	f.note(Claim{Owner: "mallory", Stranger: true}, "d/x", 5, b)
	f.Close()
	log, err := os.OpenFile(memory, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = log.WriteString("torn") // by a kill
	log.Close()
	for range 2 {
		f = reopened(t, dir, memory)
		for _, c := range []struct {
			owner, name string
			sum         [32]byte
			want        bool
		}{
			{"alice", "d/x", a, true},
			{"mallory", "d/x", b, true},
			{"alice", "d/x", b, false},
			{"mallory", "d/x", a, false},
			{"bob", "d/x", a, false},
			{"alice", "x", a, false},
		} {
			if got := f.Sent(c.owner, c.name, 5, c.sum); got != c.want {
				t.Errorf("%s has sent %s: %v", c.owner, c.name, got)
			}
		}
		if !f.Has("alice", "d") || f.Has("bob", "d") || f.Has("alice", "x") {
			t.Error("Has tells of others")
		}
		f.note(Claim{Owner: "alice"}, "y", 5, a)
	}
	if other := reopened(t, t.TempDir(), memory); other.Sent("alice", "d/x", 5, a) {
		t.Error("another folder is told of")
	}
}

// case: S19
func TestTheMemoryIsBoundedAndStrangersDoNotClearThatOfMembers(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "received")
	f := reopened(t, t.TempDir(), memory)
	f.sent.strangers.most = 300
	f.note(Claim{Owner: "alice"}, "x", 5, sumOf(nil))
	for i := range 1000 {
		f.note(Claim{Owner: fmt.Sprint(i), Stranger: true}, "x", 5, sumOf(nil))
		if n := len(f.sent.strangers.known); n > 300 || n != len(f.sent.strangers.order) {
			t.Fatalf("%d keys after %d files", n, i)
		}
	}
	if !f.Sent("alice", "x", 5, sumOf(nil)) {
		t.Error("strangers have cleared a member's")
	}
	if !f.Sent("999", "x", 5, sumOf(nil)) || f.Sent("0", "x", 5, sumOf(nil)) {
		t.Error("it is not the oldest that are forgotten")
	}
	st, err := os.Stat(memory + "-strangers")
	if err != nil || st.Size() > 300*16 {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
	keys := len(f.sent.strangers.order)
	f.Close()
	if f = reopened(t, t.TempDir(), memory); len(f.sent.strangers.order) != keys {
		t.Errorf("%d are read again, want %d", len(f.sent.strangers.order), keys)
	}
}

// A stranger that announces all that the disk has, and sends nothing, keeps no member's
// file out, but another stranger's.
//
// case: S12
func TestStrangersReserveNoRoomOfMembers(t *testing.T) {
	const free = int64(spare + 1000)
	f, _ := folder(t)
	f.free = func(*os.Root) (int64, error) { return free, nil }
	reserve := func(owner string, stranger bool, size int64) error {
		p, err := f.Resume(t.Context(), Claim{Owner: owner, Stranger: stranger}, owner, size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p.Reserve()
	}
	if err := reserve("stranger", true, 1000); err != nil {
		t.Fatal(err)
	}
	if err := reserve("another", true, 1); !errors.Is(err, ErrNoSpace) {
		t.Errorf("another stranger: %v", err)
	}
	if err := errors.Join(f.Fits(1000, false), reserve("member", false, 1000)); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := f.Fits(1, false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("what a member is sent has no room: %v", err)
	}
}
