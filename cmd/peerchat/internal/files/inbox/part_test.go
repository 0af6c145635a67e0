package inbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
)

func TestFileGetsItsNameWhenItIsWhole(t *testing.T) {
	f, dir := folder(t)
	for i, size := range []int{0, 1, 100_000, 3 << 20} {
		content := random(size)
		p := resume(t, f, "deep/in/photo.jpg", size)
		feed(t, p, content, size, 1<<20)
		if _, err := os.Stat(filepath.Join(dir, "deep/in", numbered("photo.jpg", i))); err == nil {
			t.Fatal("it has its name before it is kept")
		}
		when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		name, err := p.Keep(Meta{Modified: when, Executable: i == 1})
		if want := "deep/in/" + numbered("photo.jpg", i); err != nil || name != want {
			t.Fatalf("kept as %q, %v, want %q", name, err, want)
		}
		holds(t, dir, name, content)
		st, _ := os.Stat(filepath.Join(dir, name))
		if !st.ModTime().Equal(when) || st.Mode()&0o100 != 0 != (i == 1) {
			t.Errorf("it is of %v, %v", st.ModTime(), st.Mode())
		}
	}
	if got := entries(t, filepath.Join(dir, "deep/in")); len(got) != 4 {
		t.Errorf("there are %q", got)
	}
}

func TestReplacingNeedsToBeAllowed(t *testing.T) {
	f, dir := folder(t)
	os.WriteFile(filepath.Join(dir, "x"), []byte("old"), 0o600)
	for _, c := range []struct {
		replace bool
		name    string
	}{{true, "x"}, {false, "x (1)"}} {
		p := resume(t, f, "x", 3)
		feed(t, p, []byte("new"), 3, 3)
		if name, err := p.Keep(Meta{Replace: c.replace}); err != nil || name != c.name {
			t.Errorf("%+v: %q, %v", c, name, err)
		}
		holds(t, dir, c.name, []byte("new"))
	}
	os.Mkdir(filepath.Join(dir, "d"), 0o700)
	p := resume(t, f, "d", 3)
	feed(t, p, []byte("new"), 3, 3)
	if name, err := p.Keep(Meta{Replace: true}); err != nil || name != "d (1)" {
		t.Errorf("in the place of a folder: %q, %v", name, err)
	}
}

// fault: H2
// A process may end anywhere: here between any two writes of the file system,
// with any part of what is not yet on the disk lost or damaged.
func TestResumesAtTheLastByteThatFits(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	content := random(1 << 20)
	for range 30 {
		f, dir := folder(t)
		piece := 64 << 10
		at := 0
		for {
			p := resume(t, f, "x", len(content))
			if int(p.Len()) != at {
				t.Fatalf("it goes on at %d, want %d", p.Len(), at)
			}
			if p.Sum() != sumOf(content[:at]) {
				t.Fatal("its sum does not fit")
			}
			to := min(len(content), at+piece*rng.IntN(9))
			feed(t, p, content, to, piece)
			if to == len(content) {
				if name, err := p.Keep(Meta{}); name != "x" || err != nil {
					t.Fatalf("%q, %v", name, err)
				}
				break
			}
			part, state := filepath.Join(dir, partName("alice", "x")), filepath.Join(dir, partName("alice", "x")+".state")
			p.Close()
			at = to
			if at > 0 {
				at = damage(t, rng, part, state, at, piece)
			}
		}
		holds(t, dir, "x", content)
		if got := entries(t, dir); len(got) != 1 {
			t.Fatalf("there are %q", got)
		}
	}
}

// damage does to the files what a crash may, and returns where it is to go on.
func damage(t *testing.T, rng *rand.Rand, part, state string, at, piece int) int {
	whole := func(n int) int { return n / piece * piece }
	switch rng.IntN(6) {
	case 0: // the content is cut
		n := rng.IntN(at + 1)
		os.Truncate(part, int64(n))
		return whole(n)
	case 1: // a byte of it is another
		n := rng.IntN(at)
		b, _ := os.ReadFile(part)
		b[n] ^= 1
		os.WriteFile(part, b, 0o600)
		return whole(n)
	case 2: // the state is cut
		st, _ := os.Stat(state)
		n := rng.Int64N(st.Size() + 1)
		os.Truncate(state, n)
		return max(0, int(n)-len(marksMagic)) / markLen * piece
	case 3: // a byte of it is another
		b, _ := os.ReadFile(state)
		n := rng.IntN(len(b))
		b[n] ^= 1
		os.WriteFile(state, b, 0o600)
		if n < len(marksMagic) {
			return 0
		}
		return (n - len(marksMagic)) / markLen * piece
	case 4: // more was written than was marked
		b, _ := os.ReadFile(part)
		os.WriteFile(part, append(b, random(rng.IntN(99_999))...), 0o600)
	}
	return at
}

func TestOnlyItsOwnerGoesOnWithAFile(t *testing.T) {
	f, _ := folder(t)
	content := random(200_000)
	p := resume(t, f, "x", len(content))
	feed(t, p, content, 65536, 65536)
	p.Close()
	q, err := f.Resume(context.Background(), Claim{Owner: "mallory"}, "x", 200_000)
	if err != nil || q.Len() != 0 {
		t.Fatalf("another may go on at %d, %v", q.Len(), err)
	}
	q.Close()
	if p := resume(t, f, "x", len(content)); p.Len() != 65536 {
		t.Errorf("its owner goes on at %d", p.Len())
	}
	if !f.Has("alice", "x") || f.Has("mallory", "x") {
		t.Error("Has does not know whose it is")
	}
}

func TestASmallerFileGoesOnNoFurtherThanItsEnd(t *testing.T) {
	f, _ := folder(t)
	content := random(400_000)
	p := resume(t, f, "x", len(content))
	feed(t, p, content, 3*65536, 65536)
	p.Close()
	if p := resume(t, f, "x", 150_000); p.Len() != 2*65536 {
		t.Errorf("of 150 000 bytes %d are taken to be there", p.Len())
	}
}

func TestWrongContentIsNotVerified(t *testing.T) {
	f, dir := folder(t)
	content := random(200_000)
	p := resume(t, f, "x", len(content))
	feed(t, p, content, 65536, 65536)
	if err := p.Write(content[:65536], sumOf(content[:131072])); !errors.Is(err, ErrCorrupt) {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := p.Write(make([]byte, 134_465), digest.Sum{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more than announced: %v", err)
	}
	if _, err := p.Keep(Meta{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an incomplete file was kept: %v", err)
	}
	if p := resume(t, f, "x", len(content)); p.Len() != 65536 {
		t.Errorf("it goes on at %d", p.Len())
	}
	if got := entries(t, dir); len(got) != 2 {
		t.Errorf("there are %q", got)
	}
}

// full is a disk that takes so many bytes and no more.
type full struct {
	file
	left int
}

func (d *full) WriteAt(b []byte, at int64) (int, error) {
	n := min(len(b), d.left)
	d.left -= n
	if n, err := d.file.WriteAt(b[:n], at); err != nil || n == len(b) {
		return n, err
	}
	return n, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
}

// fault: H4
func TestFullDiskKeepsWhatIsVerified(t *testing.T) {
	f, dir := folder(t)
	content := random(400_000)
	f.wrap = func(o file) file { return &full{o, 150_000} }
	p := resume(t, f, "x", len(content))
	feed(t, p, content, 131072, 65536)
	if err := p.Write(content[131072:196608], sumOf(content[:196608])); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	name := p.Name()
	if err := p.Close(); err != nil || name == "" {
		t.Fatalf("%q, %v", name, err)
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		t.Error(err)
	}
	f.wrap = nil
	p = resume(t, f, "x", len(content))
	if p.Len() != 131072 {
		t.Errorf("it goes on at %d", p.Len())
	}
	feed(t, p, content, len(content), 65536)
	if _, err := p.Keep(Meta{}); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "x", content)
}

type failingSync struct{ file }

func (failingSync) Sync() error { return syscall.EIO }

// fault: H4
func TestContentThatCannotBeSyncedGetsNoName(t *testing.T) {
	f, dir := folder(t)
	f.wrap = func(o file) file { return failingSync{o} }
	p := resume(t, f, "x", 5)
	feed(t, p, []byte("hello"), 5, 5)
	if name, err := p.Keep(Meta{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("kept as %q, %v", name, err)
	}
	if slices.Contains(entries(t, dir), "x") {
		t.Error("it has its name")
	}
}

// fault: H3, H4
func TestDiskSpaceIsCheckedFirst(t *testing.T) {
	f, dir := folder(t)
	if free, err := f.free(f.root); !errors.Is(err, errors.ErrUnsupported) && (err != nil || free <= 0) {
		t.Errorf("the disk has %d bytes free, %v", free, err)
	}
	const free = 3 << 30 // others use the disk meanwhile
	f.free = func(*os.Root) (int64, error) { return free, nil }
	for _, size := range []int64{free + 1<<30, 1 << 62} {
		p, err := f.Resume(context.Background(), Claim{}, "x", size)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Reserve(); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%d bytes where %d are free: %v", size, free, err)
		}
		p.Close()
	}
	p, err := f.Resume(context.Background(), Claim{}, "x", free/4*3)
	if err = errors.Join(err, p.Reserve()); err != nil {
		t.Fatal(err)
	}
	if err := f.Fits(free/2, false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("beside another that is under way: %v", err)
	}
	p.Close()
	if err := f.Fits(free/2, false); err != nil {
		t.Errorf("after that one: %v", err)
	}
	if got := entries(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestANewerClaimTakesTheFileOver(t *testing.T) {
	f, _ := folder(t)
	var yielded atomic.Int32
	closing := make(chan struct{}, 1)
	old, err := f.Resume(context.Background(), Claim{Owner: "alice", Session: 1, Yield: func() {
		yielded.Add(1)
		closing <- struct{}{}
	}}, "x", 200_000)
	if err != nil {
		t.Fatal(err)
	}
	content := random(200_000)
	feed(t, old, content, 65536, 65536)
	go func() {
		<-closing
		old.Close()
	}()
	p, err := f.Resume(context.Background(), Claim{Owner: "alice", Session: 2}, "x", 200_000)
	if err != nil || p.Len() != 65536 || yielded.Load() != 1 {
		t.Fatalf("at %d, %v, asked to yield %d times", p.Len(), err, yielded.Load())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Resume(ctx, Claim{Owner: "alice", Session: 2}, "x", 200_000); !errors.Is(err, context.Canceled) {
		t.Errorf("the same session did not wait: %v", err)
	}
	p.Close()
}

// fault: H1
func TestLinksLeadNowhere(t *testing.T) {
	f, dir := folder(t)
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "secret"), []byte("hello"), 0o600)
	os.Symlink(outside, filepath.Join(dir, "out"))
	os.Symlink("out", filepath.Join(dir, "chain"))
	os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "file"))
	for _, name := range []string{"out/x", "chain/x", "out/sub/x"} {
		p := resume(t, f, name, 5)
		if err := p.Write([]byte("hello"), sumOf([]byte("hello"))); err == nil {
			t.Errorf("%s was written", name)
		}
		p.Close()
		if err := f.Mkdir(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	f.note(Claim{Owner: "alice"}, "file", 5, digest.Sum{})
	if twins := f.Twins("alice", "file", 5); len(twins) != 0 {
		t.Errorf("a link is taken for a file: %q", twins)
	}
	if _, err := f.Sum(context.Background(), "file", 5); err == nil {
		t.Error("a file outside was read")
	}
	for _, replace := range []bool{false, true} {
		p := resume(t, f, "file", 5)
		feed(t, p, []byte("hello"), 5, 5)
		if name, err := p.Keep(Meta{Replace: replace}); err != nil || !strings.HasPrefix(name, "file (") {
			t.Errorf("kept as %q, %v", name, err)
		}
	}
	os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, partName("alice", "z")))
	os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, partName("alice", "z")+".state"))
	p := resume(t, f, "z", 5)
	feed(t, p, []byte("olleh"), 5, 5)
	if _, err := p.Keep(Meta{}); err != nil {
		t.Error(err)
	}
	holds(t, outside, "secret", []byte("hello"))
	holds(t, dir, "z", []byte("olleh"))
	if got := entries(t, outside); len(got) != 1 {
		t.Errorf("outside there are %q", got)
	}
}

func TestTwinsHaveNameAndSize(t *testing.T) {
	f, dir := folder(t)
	for name, size := range map[string]int{"x": 5, "x (1)": 4, "x (2)": 5, "x (4)": 5} {
		os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600)
	}
	if got := f.Twins("alice", "x", 5); len(got) > 0 {
		t.Errorf("what alice has not sent is told as %q", got)
	}
	f.note(Claim{Owner: "alice"}, "x", 5, digest.Sum{})
	if got := f.Twins("alice", "x", 5); !slices.Equal(got, []string{"x", "x (2)"}) {
		t.Errorf("twins are %q", got)
	}
	if sum, err := f.Sum(context.Background(), "x (2)", 5); err != nil || sum != sumOf(make([]byte, 5)) {
		t.Errorf("%x, %v", sum, err)
	}
}

func FuzzResume(f *testing.F) {
	content := random(200_000)
	state := []byte(marksMagic)
	for _, at := range []int{65536, 131072} {
		state = mark{int64(at), sumOf(content[:at])}.appendTo(state)
	}
	f.Add(state, content[:131072])
	f.Add(state[:90], content[:70000])
	f.Fuzz(func(t *testing.T, state, part []byte) {
		in, dir := folder(t)
		os.WriteFile(filepath.Join(dir, partName("alice", "x")), part, 0o600)
		os.WriteFile(filepath.Join(dir, partName("alice", "x")+".state"), state, 0o600)
		p := resume(t, in, "x", len(content))
		at := int(p.Len())
		if at > len(part) || p.Sum() != sumOf(part[:at]) {
			t.Fatalf("%d bytes are believed, of %d", at, len(part))
		}
		if string(part[:at]) != string(content[:at]) {
			p.Restart()
		}
		feed(t, p, content, len(content), 65536)
		if _, err := p.Keep(Meta{}); err != nil {
			t.Fatal(err)
		}
		holds(t, dir, "x", content)
	})
}

func TestTimesThatCannotBeAreNow(t *testing.T) {
	f, dir := folder(t)
	began := time.Now().Add(-time.Minute)
	for what, m := range map[string]time.Time{
		"unknown": {}, "before 1970": time.Unix(-1, 0), "in two days": time.Now().Add(48 * time.Hour), "far away": time.UnixMilli(1 << 62),
	} {
		p := resume(t, f, what, 5)
		feed(t, p, []byte("hello"), 5, 5)
		if _, err := p.Keep(Meta{Modified: m}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if st, err := os.Stat(filepath.Join(dir, what)); err != nil || st.ModTime().Before(began) || time.Until(st.ModTime()) > time.Minute {
			t.Errorf("%s: %v, %v", what, st.ModTime(), err)
		}
	}
}
