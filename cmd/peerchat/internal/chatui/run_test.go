package chatui

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/exp/teatest/v2"
)

// colour is an escape sequence that sets one.
var colour = regexp.MustCompile(`\x1b\[([0-9;]*;)?[349][0-7][;m]`)

// within is how long the program may take to draw: it draws 60 times a second,
// but the machine may be busy.
var within = teatest.WithDuration(20 * time.Second)

// started is the whole program on a terminal of 80 × 24 that is only bytes.
func started(t *testing.T, b Backend, env ...string) *teatest.TestModel {
	w := newWork(context.Background())
	t.Cleanup(w.end)
	return teatest.NewTestModel(t, newModel(b, Config{Location: time.UTC}, w),
		teatest.WithProgramOptions(tea.WithEnvironment(append(env, "TERM=xterm-256color"))))
}

func shown(t *testing.T, tm *teatest.TestModel, want string) []byte {
	t.Helper()
	var all []byte
	teatest.WaitFor(t, tm.Output(), func(b []byte) bool {
		all = b
		return bytes.Contains(b, []byte(want))
	}, within)
	return bytes.Clone(all)
}

func TestTheWholeProgramChats(t *testing.T) {
	b := company()
	b.answer = func(text string) string { return "you said " + text }
	tm := started(t, b, "COLORTERM=truecolor", "CLICOLOR_FORCE=1")
	first := shown(t, tm, "running it now")
	if !colour.Match(first) {
		t.Errorf("no colour in %q", first)
	}
	tm.Type("hello")
	tm.Send(enter)
	shown(t, tm, "you said hello")
	tm.Send(ctrl('c'))
	tm.WaitFinished(t, teatest.WithFinalTimeout(20*time.Second))
	if rest, _ := io.ReadAll(tm.FinalOutput(t)); !bytes.Contains(rest, []byte("\x1b[?1049l")) {
		t.Error("the terminal's own screen did not come back")
	}
}

// fault: H9
func TestNoStrangerWritesToTheTerminal(t *testing.T) {
	b := company()
	b.answer = func(string) string { return "\x1b]0;owned\a\x1b[2J\u202e" + strings.Repeat("x", 10<<20) }
	tm := started(t, b)
	shown(t, tm, "running it now")
	tm.Type("say")
	tm.Send(enter)
	all := shown(t, tm, "bytes shown]")
	tm.Send(ctrl('c'))
	tm.WaitFinished(t, teatest.WithFinalTimeout(20*time.Second))
	if bytes.Contains(all, []byte("\x1b]0;owned")) || bytes.Contains(all, []byte("\u202e")) {
		t.Errorf("%q", all)
	}
}

func TestNoColorIsHeeded(t *testing.T) {
	tm := started(t, company(), "NO_COLOR=1", "COLORTERM=truecolor")
	all := shown(t, tm, "running it now")
	tm.Send(ctrl('c'))
	tm.WaitFinished(t, teatest.WithFinalTimeout(20*time.Second))
	if c := colour.Find(all); c != nil {
		t.Errorf("%q among %q", c, all)
	}
}

// fault: H5
func TestRunEndsWithItsContext(t *testing.T) {
	why := errors.New("stopped by terminated")
	for _, drawn := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(context.Background())
		in, keys := io.Pipe()
		out := &watched{seen: make(chan struct{})}
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, company(), Config{In: in, Out: out, Env: []string{"TERM=xterm"}, Location: time.UTC})
		}()
		if drawn {
			out.wait(t)
		}
		cancel(why)
		select {
		case err := <-ended:
			if !errors.Is(err, why) {
				t.Errorf("drawn %t: %v, want %v", drawn, err, why)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("still running")
		}
		_ = keys.Close()
	}
}

// watched tells when something was written to it.
type watched struct {
	once sync.Once
	seen chan struct{}
}

// Write forgets what is written.
func (w *watched) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.seen) })
	return len(p), nil
}

func (w *watched) wait(t *testing.T) {
	select {
	case <-w.seen:
	case <-time.After(20 * time.Second):
		t.Error("nothing was drawn")
	}
}

// fault: H5
func TestATerminalThatIsGoneEndsTheChat(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close() // each write fails with EPIPE
	defer w.Close()
	in, keys := io.Pipe()
	defer keys.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(context.Background(), company(), Config{In: in, Out: w, Env: []string{"TERM=xterm"}})
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
}
