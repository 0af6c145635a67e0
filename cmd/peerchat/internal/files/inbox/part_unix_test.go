//go:build unix

package inbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// fault: H3
func TestZerosTakeNoRoom(t *testing.T) {
	f, dir := folder(t)
	content := make([]byte, 8<<20)
	content[5<<20] = 1
	p := resume(t, f, "sparse", len(content))
	feed(t, p, content, 4<<20, 1<<20)
	p.Close()
	p = resume(t, f, "sparse", len(content))
	if p.Len() != 4<<20 {
		t.Fatalf("it goes on at %d", p.Len())
	}
	feed(t, p, content, len(content), 1<<20)
	if _, err := p.Keep(Meta{}); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "sparse", content)
	if used := diskUse(t, filepath.Join(dir, "sparse")); used > 2<<20 {
		t.Errorf("it takes %d bytes", used)
	}
}

func diskUse(t *testing.T, name string) int64 {
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// Another process is another Folder: the lock is the file's.
func TestAnotherProcessIsNotDisturbed(t *testing.T) {
	f, dir := folder(t)
	content := random(200_000)
	p := resume(t, f, "x", len(content))
	feed(t, p, content, 65536, 65536)
	g, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Resume(context.Background(), Claim{Owner: "alice"}, "x", 200_000); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	q := resume(t, f, "y", 5)
	feed(t, q, []byte("hello"), 3, 3)
	os.Remove(filepath.Join(dir, q.stateName())) // as before its first mark
	r, err := g.Resume(context.Background(), Claim{Owner: "alice"}, "y", 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write([]byte("h"), sumOf([]byte("h"))); !errors.Is(err, ErrBusy) {
		t.Errorf("it was written over: %v", err)
	}
	r.Close()
	feed(t, q, []byte("hello"), 5, 5)
	if _, err := q.Keep(Meta{}); err != nil {
		t.Error(err)
	}
	feed(t, p, content, len(content), 65536)
	if _, err := p.Keep(Meta{}); err != nil {
		t.Error(err)
	}
	holds(t, dir, "x", content)
	holds(t, dir, "y", []byte("hello"))
}

// Another process goes on with an old file: the lock is the file's.
func TestWhatAnotherProcessReceivesIsNotSwept(t *testing.T) {
	f, dir := folder(t)
	part := abandon(t, f, dir, "x", 99*day)
	p := resume(t, f, "x", 200_000)
	touch(t, dir, part, 99*day)
	touch(t, dir, part+stateSuffix, 99*day)
	g, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if got := swept(t, g, Rule{}); got != nil {
		t.Errorf("swept was %q", got)
	}
	p.Close()
	touch(t, dir, part, 99*day)
	touch(t, dir, part+stateSuffix, 99*day)
	if got := swept(t, g, Rule{}); !slices.Equal(got, []string{part}) {
		t.Errorf("swept was %q", got)
	}
}
