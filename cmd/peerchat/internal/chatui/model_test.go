package chatui

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"
)

// screen drives a model without a terminal: commands run as goroutines, as the
// program does it, and their messages come back one by one.
type screen struct {
	t    *testing.T
	m    *model
	work *work
	msgc chan tea.Msg
	quit bool
}

// open starts a model in a synctest bubble, at a size.
func open(t *testing.T, b Backend, width, height int) *screen {
	t.Helper()
	w := newWork(t.Context())
	s := &screen{t: t, work: w, m: newModel(b, Config{Location: time.UTC}, w), msgc: make(chan tea.Msg, 1000)}
	t.Cleanup(w.end)
	s.start(s.m.Init())
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	return s
}

func (s *screen) start(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	go func() {
		switch msg := cmd().(type) {
		case nil:
		case tea.BatchMsg:
			for _, c := range msg {
				s.start(c)
			}
		default:
			s.msgc <- msg
		}
	}()
}

// settle handles messages until nothing moves any more.
func (s *screen) settle() {
	for {
		synctest.Wait()
		select {
		case msg := <-s.msgc:
			if _, quit := msg.(tea.QuitMsg); quit {
				s.quit = true
				continue
			}
			_, cmd := s.m.Update(msg)
			s.start(cmd)
		default:
			return
		}
	}
}

func (s *screen) send(msg tea.Msg) {
	_, cmd := s.m.Update(msg)
	s.start(cmd)
	s.settle()
}

// press presses keys by their names, as in "ctrl+n".
func (s *screen) press(keys ...tea.KeyPressMsg) {
	for _, k := range keys {
		s.send(k)
	}
}

func (s *screen) typed(text string) {
	for _, r := range text {
		s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

// text is the screen without colours.
func (s *screen) text() string { return ansi.Strip(s.m.View().Content) }

func (s *screen) shows(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if !strings.Contains(s.text(), w) {
			s.t.Errorf("%q is not on the screen:\n%s", w, s.text())
		}
	}
}

func (s *screen) hides(not ...string) {
	s.t.Helper()
	for _, w := range not {
		if strings.Contains(s.text(), w) {
			s.t.Errorf("%q is on the screen:\n%s", w, s.text())
		}
	}
}

var (
	enter  = tea.KeyPressMsg{Code: tea.KeyEnter}
	tab    = tea.KeyPressMsg{Code: tea.KeyTab}
	up     = tea.KeyPressMsg{Code: tea.KeyUp}
	down   = tea.KeyPressMsg{Code: tea.KeyDown}
	pgUp   = tea.KeyPressMsg{Code: tea.KeyPgUp}
	pgDown = tea.KeyPressMsg{Code: tea.KeyPgDown}
	f1     = tea.KeyPressMsg{Code: tea.KeyF1}
)

func ctrl(r rune) tea.KeyPressMsg { return tea.KeyPressMsg{Code: r, Mod: tea.ModCtrl} }

func TestScreensLookAsDrawn(t *testing.T) {
	for _, size := range [][2]int{{100, 24}, {60, 16}, {40, 12}, {20, 8}, {8, 6}, {1, 4}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, company(), size[0], size[1])
				s.typed("a draft")
				golden.RequireEqual(t, s.text()+"\n")
			})
		})
	}
	t.Run("contacts of a narrow terminal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, company(), 20, 8)
			s.press(tab, down)
			golden.RequireEqual(t, s.text()+"\n")
		})
	})
	t.Run("all keys", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, company(), 60, 24)
			s.press(f1)
			golden.RequireEqual(t, s.text()+"\n")
		})
	})
}

// fault: H5
func TestEverySizeIsFilledExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		b.say(Message{Contact: "a11ce", Text: "宽字符 wide 👨‍👩‍👧 \x1b[31m and a word" + strings.Repeat("x", 300)})
		s := open(t, b, 80, 24)
		s.typed("宽 input")
		for _, showHelp := range []bool{false, true} {
			s.m.help.ShowAll = showHelp
			for _, p := range []pane{inputPane, contactsPane} {
				s.m.pane = p
				for w := 1; w <= 90; w += 1 + w/12 {
					for h := 1; h <= 30; h += 1 + h/8 {
						s.send(tea.WindowSizeMsg{Width: w, Height: h})
						lines := strings.Split(s.text(), "\n")
						if len(lines) != h {
							t.Fatalf("%d×%d: %d lines", w, h, len(lines))
						}
						for _, l := range lines {
							if got := ansi.StringWidth(l); got != w {
								t.Fatalf("%d×%d: a line of %d columns: %q", w, h, got, l)
							}
						}
					}
				}
			}
		}
		s.send(tea.WindowSizeMsg{})
		if s.text() != "" {
			t.Error("something on a screen without size")
		}
	})
}

func TestWhatIsTypedIsSentInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		b.block = make(chan struct{})
		s := open(t, b, 80, 24)
		for i := range 20 {
			s.typed(fmt.Sprintf("message %d", i))
			s.press(enter)
		}
		s.shows("20 waiting")
		close(b.block)
		s.settle()
		s.hides("waiting")
		s.shows("you: message 19 ✓✓")
		for i, o := range b.sent {
			if want := fmt.Sprintf("message %d", i); o.text != want || o.contact != "a11ce" {
				t.Errorf("%d was %v", i, o)
			}
		}
		if len(b.sent) != 20 {
			t.Errorf("%d were sent", len(b.sent))
		}
		if n := strings.Count(s.text(), "message 19"); n != 1 {
			t.Errorf("on the screen %d times", n)
		}
	})
}

func TestTooManyWaitingMessagesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		b.block = make(chan struct{})
		s := open(t, b, 80, 24)
		for range maxQueued + 2 {
			s.typed("x")
			s.press(enter)
		}
		s.shows("64 messages are waiting to be taken: not sent", "› x")
		close(b.block)
		s.settle()
		if len(b.sent) != maxQueued+1 { // one was under way
			t.Errorf("%d were sent", len(b.sent))
		}
	})
}

func TestAFailedMessageStaysAndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		b.refuse = errors.New("the disk is full\x1b[2J")
		s := open(t, b, 80, 24)
		b.refuse = nil
		s.press(ctrl('n'), ctrl('p')) // the history is there now
		b.refuse = errors.New("the disk is full\x1b[2J")
		s.typed("important")
		s.press(enter)
		s.shows("you: important", `✗ not sent: the disk is full\x1b[2J`)
		b.refuse = nil
		s.press(ctrl('r'))
		s.shows("you: important ✓✓")
		s.hides("not sent")
		if n := strings.Count(s.text(), "important"); n != 1 {
			t.Errorf("on the screen %d times", n)
		}
	})
}

func TestMarksChangeInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier"})
		s := open(t, b, 80, 24)
		m := Message{Contact: "x", Mine: true, Text: "hello"}
		b.say(m)
		s.settle()
		s.shows("hello ·")
		m = b.msgs["x"][0]
		for mark, want := range map[Mark]string{Sent: "hello ✓ ", Delivered: "hello ✓✓", Failed: "✗ not sent: no such device"} {
			m.Mark, m.Reason = mark, "no such device"
			b.mu.Lock()
			b.mark(m)
			b.mu.Unlock()
			s.settle()
			s.shows(want)
		}
	})
}

func TestUnreadCountsUntilSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		s := open(t, b, 80, 24)
		s.shows("● carol           2")
		if got := s.m.View().WindowTitle; got != "peerchat (2)" {
			t.Errorf("title %q", got)
		}
		s.press(ctrl('o')) // the next one with unread messages
		s.shows("the build is green again")
		s.hides("● carol           2")
		if b.seen["ca201"] != 2 || b.seen["a11ce"] != 5 {
			t.Errorf("seen %v", b.seen)
		}
		// While the terminal is not in front, nothing is seen.
		s.send(tea.BlurMsg{})
		b.say(Message{Contact: "ca201", Text: "and the demo"})
		s.settle()
		s.shows("and the demo")
		if b.seen["ca201"] != 2 {
			t.Error("seen by nobody")
		}
		s.send(tea.FocusMsg{})
		if b.seen["ca201"] != 3 {
			t.Error("not seen")
		}
	})
}

func TestHistoryPagesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier", Presence: Online})
		for i := range 180 {
			b.say(Message{Contact: "x", Text: fmt.Sprintf("number %d.", i)})
		}
		s := open(t, b, 80, 24)
		s.shows("number 179.")
		if len(b.pages) != 1 {
			t.Errorf("%d pages before anybody asked", len(b.pages))
		}
		for range 15 {
			s.press(pgUp)
		}
		s.shows("number 0.", "— Thu 5 Mar 2026 —")
		s.hides("number 179.")
		if want := []int64{0, 141, 101, 61, 21}; fmt.Sprint(b.pages) != fmt.Sprint(want) {
			t.Errorf("pages before %v, want %v", b.pages, want)
		}
		// What comes meanwhile does not move what is read.
		before := s.body()
		b.say(Message{Contact: "x", Text: "news"})
		s.settle()
		if s.body() != before {
			t.Errorf("the screen moved:\n%s\n%s", before, s.body())
		}
		s.press(ctrl('l'))
		s.shows("news")
		s.press(pgUp, pgDown)
		s.shows("news")
	})
}

// What the backend says of a message travels by three ways: a page, the answer
// to Send, and events. Whatever comes first, the events have the last word.
func TestNewsBesideAnOlderPageIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier"})
		b.say(Message{Contact: "x", Mine: true, Text: "first", Mark: Queued})
		s := open(t, b, 80, 24)
		c := s.m.open
		old := b.msgs["x"]
		for _, loaded := range []bool{true, false} {
			c.loading, c.loaded = true, loaded
			now := old[0]
			now.Mark = Delivered
			seq := c.newest() + 1
			s.send(changed{events: []Event{{Message: &now}, {Message: &Message{Contact: "x", Seq: seq, Mine: true, Text: fmt.Sprint("new ", seq), Mark: Sent}}}})
			s.send(taken{outgoing{"x", ""}, Message{Contact: "x", Seq: seq, Mine: true, Text: fmt.Sprint("new ", seq), Mark: Queued}, nil})
			s.send(pageCame{"x", 0, old, nil}) // read before all that
			s.shows("you: first ✓✓", fmt.Sprintf("you: new %d ✓ ", seq))
			if c.pending != nil {
				t.Error("something is kept for a page that is here")
			}
		}
	})
}

// stuck is a backend that answers each question with the same page.
type stuck struct{ *memory }

// History ignores before.
func (b stuck) History(ctx context.Context, contact string, before int64, n int) ([]Message, error) {
	msgs, err := b.memory.History(ctx, contact, 0, n)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages[len(b.pages)-1] = before
	return msgs, err
}

func TestAPageWithoutAnythingOlderEndsTheAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier"})
		for range 2 * page {
			b.say(Message{Contact: "x", Text: "again"})
		}
		s := open(t, stuck{b}, 80, 24)
		for range 10 {
			s.press(pgUp)
		}
		if want := []int64{0, page + 1}; fmt.Sprint(b.pages) != fmt.Sprint(want) {
			t.Errorf("pages before %v, want %v", b.pages, want)
		}
	})
}

// body is the screen without its header.
func (s *screen) body() string { return strings.Join(strings.Split(s.text(), "\n")[1:], "\n") }

func TestDraftsStayWithTheirConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, company(), 80, 24)
		s.typed("for alice")
		s.press(ctrl('n'))
		s.hides("for alice")
		s.shows("lunch tomorrow?", "I booked the table by the window ·")
		s.typed("for bob")
		s.press(tab, up, up, enter)
		s.shows("› for alice")
		s.hides("for bob")
		s.press(ctrl('c'))
		if !s.quit {
			t.Error("ctrl+c did not leave")
		}
	})
}

func TestALostBackendIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := company()
		s := open(t, b, 80, 24)
		b.hangUpAll(func() {
			b.deaf = true
			for i := range 70 { // more than a page: nothing may look whole that is not
				b.put(Message{Contact: "a11ce", Text: fmt.Sprintf("missed %d.", i)})
			}
			b.contacts = b.contacts[:3]
		})
		s.settle()
		time.Sleep(5 * time.Second)
		s.settle()
		s.shows("no news, trying again: the daemon is gone")
		b.mu.Lock()
		b.deaf = false
		b.mu.Unlock()
		time.Sleep(maxRetry)
		s.settle()
		s.shows("missed 69.")
		s.hides("dave")
		for range 8 {
			s.press(pgUp)
		}
		s.shows("missed 0.", "running it now")
	})
}

func TestContactsComeChangeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory()
		s := open(t, b, 80, 12)
		s.shows("no contact yet")
		s.typed("hello?")
		s.press(enter)
		s.shows("nobody to send to")
		b.change(Contact{ID: "z", Name: "zoe"})
		s.settle()
		b.change(Contact{ID: "a", Name: "adam", Presence: Away})
		s.settle()
		s.shows("? zoe", "○ adam", "› hello?")
		if strings.Index(s.text(), "adam") > strings.Index(s.text(), "? zoe") {
			t.Error("not in the order of their names")
		}
		b.change(Contact{ID: "z", Name: "", Presence: Online, Detail: "now\x07"})
		s.settle()
		s.shows("● z", `now\a`)
		b.mu.Lock()
		b.contacts = b.contacts[1:]
		b.tell(Event{Gone: "z"})
		b.mu.Unlock()
		s.settle()
		s.shows("z is no contact any more")
	})
}

// fault: H9
func TestAFloodIsHeldInBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory(Contact{ID: "x", Name: "xavier"}, Contact{ID: "y", Name: "yves"})
		s := open(t, b, 80, 24)
		long := strings.Repeat("flood ", 200)
		for i := range 3 * maxHeld {
			for _, id := range []string{"x", "y"} {
				b.say(Message{Contact: id, Text: long})
			}
			if i%200 == 0 {
				s.settle()
			}
		}
		s.settle()
		if n := len(s.m.open.entries); n > maxHeld || s.m.open.size > maxHeldMem {
			t.Errorf("%d messages of %d bytes are held", n, s.m.open.size)
		}
		s.press(ctrl('n'))
		if n := len(s.m.find("x").entries); n > maxClosed {
			t.Errorf("%d messages of a closed conversation are held", n)
		}
	})
}
