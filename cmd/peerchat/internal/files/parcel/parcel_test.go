package parcel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lukechampine.com/blake3"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
)

func send(t testing.TB, r *receiver, paths ...string) (Summary, error) {
	t.Helper()
	return Send(t.Context(), SendConfig{Open: r.open, Patience: -1}, paths...)
}

func TestFilesAndFoldersArriveAsTheyAre(t *testing.T) {
	content := map[string][]byte{
		"a.txt":               []byte("hello"),
		"empty":               {},
		"tree/b.bin":          random(3<<20 + 17),
		"tree/deep/er/c.bin":  random(64 << 10),
		"tree/deep/er/d.bin":  random(64<<10 + 1),
		"tree/deep/empty.txt": {},
		"tree/zeros":          make([]byte, 2<<20),
	}
	dir := files(t, content)
	os.Mkdir(filepath.Join(dir, "tree", "nothing"), 0o755)
	when := time.Date(2011, 1, 2, 3, 4, 5, 0, time.UTC)
	os.Chtimes(filepath.Join(dir, "a.txt"), when, when)
	os.Chmod(filepath.Join(dir, "empty"), 0o755)

	r := newReceiver(t, Config{})
	var sums []Event
	sum, err := Send(t.Context(), SendConfig{Open: r.open, Watch: func(e Event) {
		if e.Kind == Kept && !e.Folder {
			sums = append(sums, e)
		}
	}}, filepath.Join(dir, "a.txt"), filepath.Join(dir, "empty"), filepath.Join(dir, "tree"))
	if err != nil || sum.Kept != 7+4 || sum.Failed+sum.Skipped+sum.Same != 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
	holds(t, r.dir, content)
	for _, e := range sums {
		if e.Sum != digest.Sum(blake3.Sum256(content[e.Path])) || e.Name != e.Path {
			t.Errorf("%+v is not what was sent", e)
		}
	}
	a, _ := os.Stat(filepath.Join(r.dir, "a.txt"))
	x, _ := os.Stat(filepath.Join(r.dir, "empty"))
	n, err := os.Stat(filepath.Join(r.dir, "tree", "nothing"))
	if !a.ModTime().Equal(when) || a.Mode()&0o111 != 0 || x.Mode()&0o100 == 0 || err != nil || !n.IsDir() {
		t.Errorf("%v %v %v %v", a.ModTime(), a.Mode(), x.Mode(), err)
	}
	o := r.of(Offered)
	if len(o) != 1 || !slices.Equal(o[0].Offer.Names, []string{"a.txt", "empty", "tree"}) || o[0].Offer.Entries != 11 {
		t.Errorf("offered was %+v", o)
	}
}

func TestWhatIsThereIsNotSentAgain(t *testing.T) {
	content := map[string][]byte{"tree/a": random(200_000), "tree/b": []byte("b"), "tree/empty": {}}
	dir := files(t, content)
	r := newReceiver(t, Config{})
	for i := range 2 {
		sum, err := send(t, r, filepath.Join(dir, "tree"))
		if err != nil || i == 1 && sum.Same != 3 {
			t.Fatalf("%+v, %v", sum, err)
		}
	}
	holds(t, r.dir, content)
	os.WriteFile(filepath.Join(dir, "tree", "a"), random(200_001)[:200_000], 0o644) // another of that size
	for i := range 2 {
		if sum, err := send(t, r, filepath.Join(dir, "tree")); err != nil || sum.Same != 2+i {
			t.Fatalf("%+v, %v", sum, err)
		}
	}
	content["tree/a (1)"] = random(200_001)[:200_000]
	holds(t, r.dir, content)
}

func TestExistingFilesAreReplacedOnlyIfThatIsAllowed(t *testing.T) {
	dir := files(t, map[string][]byte{"x": []byte("new")})
	r := newReceiver(t, Config{Replace: true})
	os.WriteFile(filepath.Join(r.dir, "x"), []byte("precious"), 0o600)
	if _, err := send(t, r, filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	holds(t, r.dir, map[string][]byte{"x": []byte("new")})
}

// fault: H2
// The channel is cut at many places; each time the sender, and often the receiver,
// starts anew. In the end all is there, once, and no byte that was verified was
// sent again.
func TestGoesOnAfterACutAnywhere(t *testing.T) {
	content := map[string][]byte{"big": random(900_000), "tree/small": random(100), "tree/mid": random(150_000), "tree/empty": {}}
	total := int64(0)
	for _, b := range content {
		total += int64(len(b))
	}
	dir := files(t, content)
	paths := []string{filepath.Join(dir, "big"), filepath.Join(dir, "tree")}
	for first := int64(0); first < total+2000; first += 60_013 {
		r := newReceiver(t, Config{})
		rng := rand.New(rand.NewPCG(uint64(first), 1))
		goesOn(t, r, paths, func() int64 { return first + rng.Int64N(200_000) })
		holds(t, r.dir, content)
		r.stop()
	}
	r := newReceiver(t, Config{})
	for first := int64(0); first < 700; first += 5 { // the first messages, at every fifth byte
		goesOn(t, r, paths, func() int64 { return first })
	}
	holds(t, r.dir, content)
}

// goesOn sends until it succeeds, with longer and longer lives, and checks that
// each file goes on at the last byte that was verified.
func goesOn(t *testing.T, r *receiver, paths []string, life func() int64) {
	t.Helper()
	n := life()
	for try := 0; ; try++ {
		r.link = cutAfter(n)
		verified, seen := map[string]int64{}, map[string]bool{}
		for _, e := range r.of(Cut) {
			verified[e.Path] = e.At
		}
		r.mu.Lock()
		r.events = nil
		r.mu.Unlock()
		_, err := Send(t.Context(), SendConfig{Open: r.open, Patience: -1, Watch: func(e Event) {
			if e.Kind == Moved && !seen[e.Path] {
				if seen[e.Path] = true; e.At != verified[e.Path] {
					t.Errorf("%s goes on at %d, and was verified up to %d", e.Path, e.At, verified[e.Path])
				}
			}
		}}, paths...)
		if err == nil {
			r.wg.Wait()
			return
		}
		if try%2 == 1 { // the receiver is another process from now on
			r.stop()
			r.start(Config{})
		}
		r.wg.Wait()
		if try > 100 {
			t.Fatal("it does not get through")
		}
		n += life() + 1000
	}
}

// fault: H2
// One Send goes on by itself when its channel is cut and can be opened again.
func TestComesBackAfterACut(t *testing.T) {
	content := map[string][]byte{"tree/a": random(2 << 20), "tree/b": random(300_000), "tree/c": {1}}
	dir := files(t, content)
	asked := 0
	r := newReceiver(t, Config{Consent: func(ctx context.Context, o Offer) error {
		asked++
		_, err := o.Look(ctx)
		return err
	}})
	opened := 0
	r.link = func() (net.Conn, net.Conn) {
		opened++
		switch opened {
		case 2:
			return nil, nil
		case 1, 3:
			return cutAfter(700_000)()
		}
		return net.Pipe()
	}
	kept := map[string]int{}
	sum, err := Send(t.Context(), SendConfig{Open: r.open, Watch: func(e Event) {
		if e.Kind == Kept || e.Kind == Same {
			kept[e.Path]++
		}
	}}, filepath.Join(dir, "tree"))
	if err != nil || opened != 4 || asked != 1 {
		t.Fatalf("%+v, %v, after %d channels, %d times asked", sum, err, opened, asked)
	}
	if !maps.Equal(kept, map[string]int{"tree": 1, "tree/a": 1, "tree/b": 1, "tree/c": 1}) {
		t.Errorf("told was %v", kept)
	}
	holds(t, r.dir, content)
}

func TestASenderThatComesBackTakesOver(t *testing.T) {
	dir := files(t, map[string][]byte{"a": random(900_000)})
	r := newReceiver(t, Config{})
	stuck := make(chan struct{})
	r.link = func() (net.Conn, net.Conn) {
		a, b := net.Pipe()
		r.link = nil // the next one works
		return &stopping{Conn: a, after: 300_000, stuck: stuck}, b
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Send(ctx, SendConfig{Open: r.open, Patience: -1}, filepath.Join(dir, "a"))
		done <- err
	}()
	select {
	case <-stuck: // its channel is dead, but nobody at the receiver knows
	case err := <-done:
		t.Fatalf("the first sender was not stopped: %v", err)
	}
	if _, err := send(t, r, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if moved := r.of(Moved); !slices.ContainsFunc(moved, func(e Event) bool { return e.At > 0 && e.At < 300_000 }) {
		t.Error("the first sender did not get anywhere")
	}
	cancel()
	<-done
	r.stop()
	if !slices.ContainsFunc(r.errs, func(err error) bool { return errors.Is(err, errSuperseded) }) {
		t.Errorf("the first session ended with %v", r.errs)
	}
	holds(t, r.dir, map[string][]byte{"a": random(900_000)})
}

// stopping takes so many bytes, and no more until it is closed.
type stopping struct {
	net.Conn
	after int
	stuck chan struct{}
}

func (c *stopping) Write(p []byte) (int, error) {
	if c.after -= len(p); c.after < 0 {
		close(c.stuck)
		_, err := c.Read(make([]byte, 1))
		return 0, errors.Join(err, net.ErrClosed)
	}
	return c.Conn.Write(p)
}

func TestNothingIsReceivedWithoutConsent(t *testing.T) {
	dir := files(t, map[string][]byte{"secret plan.txt": []byte("hello")})
	for why, cfg := range map[string]Config{
		"no files from you": {Consent: func(_ context.Context, o Offer) error {
			if o.Bytes != 5 || o.Entries != 1 || o.From != alice || o.Names[0] != "secret plan.txt" {
				t.Errorf("asked about %+v", o)
			}
			return errors.New("no files from you")
		}},
		"at most 3 are taken": {MaxBytes: 3},
	} {
		r := newReceiver(t, cfg)
		if _, err := send(t, r, filepath.Join(dir, "secret plan.txt")); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), why) {
			t.Errorf("the sender got %v", err)
		}
		r.stop()
		for _, err := range r.errs {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("the receiver got %v", err)
			}
		}
		holds(t, r.dir, nil)
	}
}

func TestAQuestionEndsWithItsSender(t *testing.T) {
	dir := files(t, map[string][]byte{"a": {1}})
	asked, ended := make(chan struct{}), make(chan error, 1)
	r := newReceiver(t, Config{Consent: func(ctx context.Context, _ Offer) error {
		close(asked)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Send(ctx, SendConfig{Open: r.open}, filepath.Join(dir, "a"))
		done <- err
	}()
	select {
	case <-asked:
	case err := <-done:
		t.Fatalf("the sender ended before the question: %v", err)
	}
	cause := errors.New("the sender's user stopped it")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("the sender ended with %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the question has no reason to end")
	}
}

// A device that takes no files is asked once, and its error is the caller's.
func TestADeviceThatTakesNoFilesIsAskedOnce(t *testing.T) {
	dir := files(t, map[string][]byte{"a": {1}, "b": {2}})
	none := fmt.Errorf("nobody is there: %w", ErrNotServed)
	asked := 0
	nobody := func(context.Context, string) (net.Conn, error) { asked++; return nil, none }
	if sum, err := Send(t.Context(), SendConfig{Open: nobody}, dir); err != none || sum.Kept+sum.Failed != 0 || asked != 1 {
		t.Errorf("asked %d times: %+v, %v", asked, sum, err)
	}
}

// fault: H3
func TestSourceThatChangesIsNotKept(t *testing.T) {
	for what, change := range map[string]func(name string){
		"grows":      func(name string) { os.WriteFile(name, random(3_000_000), 0o644) },
		"shrinks":    func(name string) { os.Truncate(name, 1_500_000) },
		"is edited":  func(name string) { os.WriteFile(name, random(2_000_001)[:2_000_000], 0o644) },
		"is removed": func(name string) { os.Remove(name) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := files(t, map[string][]byte{"a": random(2_000_000), "b": []byte("unharmed")})
			name := filepath.Join(dir, "a")
			past := time.Unix(1e9, 0) // else the change may fall into the same tick of the file system's clock
			os.Chtimes(name, past, past)
			r := newReceiver(t, Config{})
			changed := false
			sum, err := Send(t.Context(), SendConfig{Open: r.open, Watch: func(e Event) {
				if (e.Kind == Moved && e.At > 0 || what == "is removed") && !changed {
					changed = true
					change(name)
				}
			}}, name, filepath.Join(dir, "b"))
			if err == nil || sum.Kept != 1 || sum.Failed+sum.Skipped != 1 {
				t.Errorf("%+v, %v", sum, err)
			}
			got := listing(t, r.dir)
			if _, there := got["a"]; there || string(got["b"]) != "unharmed" {
				t.Errorf("there are %q", slices.Collect(maps.Keys(got)))
			}
		})
	}
}

// fault: H2, H3
// A source that is another one when its sender comes back is sent whole.
func TestAnotherSourceIsNotMixedIn(t *testing.T) {
	dir := files(t, map[string][]byte{"a": random(900_000)})
	r := newReceiver(t, Config{})
	r.link = cutAfter(500_000)
	if _, err := send(t, r, filepath.Join(dir, "a")); err == nil {
		t.Fatal("it was not cut")
	}
	r.stop()
	if cut := r.of(Cut); len(cut) != 2 || cut[0].Part == "" || cut[0].At == 0 || cut[0].Path != "a" {
		t.Errorf("the cut was told as %+v", cut)
	}
	r.start(Config{})
	other := random(900_001)
	os.WriteFile(filepath.Join(dir, "a"), other, 0o644)
	r.link = nil
	if _, err := send(t, r, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	holds(t, r.dir, map[string][]byte{"a": other})
}

func TestWhatCannotBeSentIsTold(t *testing.T) {
	dir := files(t, map[string][]byte{"tree/a": {1}, "tree/\xff": {2}})
	os.Symlink("a", filepath.Join(dir, "tree", "link"))
	r := newReceiver(t, Config{})
	sum, err := send(t, r, filepath.Join(dir, "tree"))
	if err == nil || sum.Kept != 2 || sum.Skipped != 2 {
		t.Errorf("%+v, %v", sum, err)
	}
	holds(t, r.dir, map[string][]byte{"tree/a": {1}})
	for what, paths := range map[string][]string{
		"no such file":      {filepath.Join(dir, "nowhere")},
		"both be called":    {filepath.Join(dir, "tree", "a"), filepath.Join(dir, "tree", "..", "tree", "a")},
		"neither a file":    {os.DevNull},
		"not a name for a ": {"/"},
	} {
		if _, err := send(t, r, paths...); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v", paths, err)
		}
	}
}

// fault: H4
func TestOneFileThatCannotBeStoredDoesNotHarmTheOthers(t *testing.T) {
	dir := files(t, map[string][]byte{"tree/sub/a": {1}, "tree/b": {2}})
	r := newReceiver(t, Config{})
	os.Mkdir(filepath.Join(r.dir, "tree"), 0o755)
	os.WriteFile(filepath.Join(r.dir, "tree", "sub"), []byte("a file"), 0o600) // where a folder should be
	sum, err := send(t, r, filepath.Join(dir, "tree"))
	if err == nil || sum.Failed != 2 || sum.Kept != 2 || !strings.Contains(err.Error(), "file exists") || strings.Contains(err.Error(), r.dir) {
		t.Errorf("%+v, %v", sum, err)
	}
	holds(t, r.dir, map[string][]byte{"tree/sub": []byte("a file"), "tree/b": {2}})
}

// case: S12
// A hundred throw-away keys fill the room of strangers; a member has its own, and
// what strangers have left is given back.
func TestStrangersDoNotTakeTheRoomOfMembers(t *testing.T) {
	r := newReceiver(t, Config{Consent: func(ctx context.Context, o Offer) error {
		if o.From.Member {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	served := func(from Peer) (*wire, <-chan error) {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close() })
		done := make(chan error, 1)
		r.wg.Go(func() {
			_, err := r.Serve(context.Background(), b, from, nil)
			done <- err
		})
		return newWire(a), done
	}
	var held []*wire
	for key := range 100 {
		w, done := served(Peer{ID: fmt.Sprint(key)})
		go func() { _, _ = io.Copy(io.Discard, w.conn) }()
		_ = w.send(kindOffer, offer{id: [16]byte{1}}.elems()...) // fails where there is no place
		if key < strangerSessions {
			held = append(held, w)
			continue
		}
		if err := <-done; !errors.Is(err, ErrTooMany) {
			t.Errorf("stranger %d: %v", key, err)
		}
	}
	if m, s := r.sessions.Used(); m != 0 || s != strangerSessions {
		t.Errorf("%d and %d places are taken", m, s)
	}
	dir := files(t, map[string][]byte{"a": {1}})
	one := func(from Peer) error {
		open := func(context.Context, string) (net.Conn, error) { return r.openAs(from) }
		_, err := Send(t.Context(), SendConfig{Open: open, Patience: -1}, filepath.Join(dir, "a"))
		return err
	}
	if err := one(Peer{ID: "bob", Member: true}); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := one(Peer{ID: "late"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), ErrTooMany.Error()) {
		t.Errorf("one more stranger: %v", err)
	}
	for _, w := range held {
		w.conn.Close()
	}
	r.wg.Wait()
	if m, s := r.sessions.Used(); m+s != 0 {
		t.Errorf("%d and %d places are not given back", m, s)
	}
}

func Example() {
	dir, _ := os.MkdirTemp("", "parcel")
	defer os.RemoveAll(dir)
	_ = os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello"), 0o600)
	folder, _ := inbox.Open(filepath.Join(dir, "received"))
	defer folder.Close()
	r := NewReceiver(Config{Folder: folder})

	served := make(chan error)
	open := func(context.Context, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			_, err := r.Serve(context.Background(), b, Peer{ID: "alice"}, nil)
			served <- err
		}()
		return a, nil
	}
	sum, err := Send(context.Background(), SendConfig{Open: open}, filepath.Join(dir, "hello.txt"))
	fmt.Println(sum.Kept, sum.Bytes, err, <-served)
	// Output: 1 5 <nil> <nil>
}

var _ io.Reader = readerFunc(nil)
