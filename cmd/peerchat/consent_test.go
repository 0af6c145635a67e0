package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/cmd/peerchat/internal/files/parcel"
)

// case: S15
func TestFilesOfStrangersNeedATerminalOrAWord(t *testing.T) {
	for _, c := range []struct {
		flag     string
		terminal bool
		want     string // empty: an error
	}{
		{"", true, acceptAsk},
		{"", false, acceptContacts},
		{acceptAlways, false, acceptAlways},
		{acceptAlways, true, acceptAlways},
		{acceptContacts, true, acceptContacts},
		{acceptAsk, true, acceptAsk},
		{acceptAsk, false, ""},
		{"sometimes", true, ""},
	} {
		got, err := acceptPolicy(c.flag, c.terminal)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("--accept %q, on a terminal: %v: %q, %v", c.flag, c.terminal, got, err)
		}
		if c.want != "" && policies[got] == "" {
			t.Errorf("%s is not told in words", got)
		}
	}
}

// asking is a receiver with a terminal.
type asking struct {
	t   *testing.T
	c   *consent
	rec *parcel.Receiver
	dir string
	out *io.PipeReader // what is asked
	wg  sync.WaitGroup
}

func newAsking(t *testing.T) *asking {
	t.Helper()
	out, in := io.Pipe()
	a := &asking{t: t, c: newConsent(acceptAsk, nil, in), dir: t.TempDir(), out: out}
	folder, err := inbox.Open(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	a.rec = parcel.NewReceiver(parcel.Config{Folder: folder, Consent: a.c.decide})
	t.Cleanup(func() {
		a.wg.Wait()
		_ = folder.Close()
	})
	return a
}

// send sends files as a device, in the background.
func (a *asking) send(ctx context.Context, from parcel.Peer, paths ...string) <-chan error {
	open := func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		a.wg.Go(func() { _, _ = a.rec.Serve(context.Background(), there, from, nil) })
		return here, nil
	}
	sent := make(chan error, 1)
	go func() {
		_, err := parcel.Send(ctx, parcel.SendConfig{Open: open, Patience: -1}, paths...)
		sent <- err
	}()
	return sent
}

// question reads what is asked next.
func (a *asking) question() string {
	a.t.Helper()
	b := make([]byte, 4096)
	n, err := a.out.Read(b)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b[:n])
}

// later has the question that is shown be there for longer.
func (a *asking) later(d time.Duration) {
	a.c.prompt.mu.Lock()
	defer a.c.prompt.mu.Unlock()
	a.c.prompt.shown = a.c.prompt.shown.Add(-d)
}

// write makes a file, and the folders above.
func write(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("hello"), mode); err != nil {
		t.Fatal(err)
	}
}

// case: S2
func TestTheQuestionTellsWhatIsHiddenAndWhatRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for _, name := range []string{"a", ".b", ".ssh/keys"} {
		write(t, filepath.Join(dir, name), 0o600)
	}
	write(t, filepath.Join(dir, "run\x1b[2J"), 0o700)
	a := newAsking(t)
	sent := a.send(t.Context(), parcel.Peer{ID: "0123456789", Name: `a stranger that calls itself "Mal` + "\u202e" + `lory" (01234567)`}, dir)
	got := a.question()
	for _, want := range []string{
		`lory" (01234567) wants to send d and 5 more, 20 B, 3 hidden (`, "Its device id is 0123456789\n", "d/.b", "d/.ssh/keys", "1 can be run (d/run%1B[2J)", "Take it?",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %q", want, got)
		}
	}
	if strings.ContainsAny(got, "\x1b\u202e") {
		t.Errorf("%q is not escaped", got)
	}
	a.later(readTime)
	if !a.c.prompt.typed("y") {
		t.Error("no answer is waited for")
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(a.dir, "d", ".ssh", "keys")); err != nil {
		t.Error(err)
	}
}

// case: S12
// A hundred throw-away keys have questions that nobody answers. A contact is taken
// from meanwhile, and the places are given back.
func TestQuestionsOfStrangersDoNotHoldUpContacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write(t, path, 0o600)
	a := newAsking(t)
	a.c.pace = rate.NewLimiter(0, maxQuestions) // as long as the test is
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan error, 100)
	for key := range 100 {
		sent := a.send(ctx, parcel.Peer{ID: fmt.Sprint(key)}, path)
		go func() { told <- <-sent }()
	}
	_ = a.question()
	for range 100 - maxQuestions { // the others are told so at once
		if err := <-told; err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("a stranger is told %v", err)
		}
	}
	if err := <-a.send(t.Context(), parcel.Peer{ID: "bob", Member: true}, path); err != nil {
		t.Errorf("a contact: %v", err)
	}
	if used, _ := a.c.places.Used(); used > maxQuestions {
		t.Errorf("%d questions wait", used)
	}
	go func() { _, _ = io.Copy(io.Discard, a.out) }() // they are over
	cancel()
	a.wg.Wait()
	if used, _ := a.c.places.Used(); used != 0 {
		t.Errorf("%d places are not given back", used)
	}
	if err := <-a.send(t.Context(), parcel.Peer{ID: "late"}, path); err == nil || !strings.Contains(err.Error(), "too many have asked") {
		t.Errorf("one question more is answered with %v", err)
	}
}

// case: S13
// Strangers' failures are told at a bounded rate, and how many were not; a
// contact's always are.
func TestFailuresOfStrangersFillNoLog(t *testing.T) {
	var out strings.Builder
	tk := &taker{o: &options{}, p: &printer{out: &out}, faults: rate.NewLimiter(0, 10)}
	failures := func(member bool) {
		sh := &show{p: tk.p, from: "mallory", mute: func() bool { return !member && !tk.faulty() }}
		for range 1000 {
			sh.event(parcel.Event{Kind: parcel.Failed, Path: "x", Err: errContactsOnly})
		}
	}
	failures(false)
	if n := strings.Count(out.String(), "\n"); n != 10 {
		t.Errorf("%d lines", n)
	}
	out.Reset()
	failures(true)
	if n := strings.Count(out.String(), "\n"); n != 1000 {
		t.Errorf("%d lines of a contact", n)
	}
	out.Reset()
	tk.faults = rate.NewLimiter(0, 1)
	failures(false)
	if got := out.String(); !strings.HasPrefix(got, "-- 990 failures of strangers were not told\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("then it says %q", got)
	}
	if isOutcome(parcel.ErrTooMany) {
		t.Error("a stranger without a place ends receive --once")
	}
}
