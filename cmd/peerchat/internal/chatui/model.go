package chatui

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"

	"peerlink/internal/pause"
)

// Bounds of what the user may have under way.
const (
	maxInput  = 16 << 10 // bytes of a message: what is shown of one
	maxLines  = 400      // lines of the input, which is drawn whole
	maxQueued = 64       // messages that the backend has not taken
	maxBatch  = 256      // events between two drawings
	maxRetry  = 30 * time.Second
)

// pane is what the keys go to.
type pane uint8

const (
	inputPane pane = iota
	contactsPane
)

// outgoing is a message that the backend has not taken yet.
type outgoing struct{ contact, text string }

// model is the whole state of the chat. One goroutine calls its methods.
type model struct {
	b      Backend
	cfg    Config
	work   *work
	st     styles
	keys   keys
	help   help.Model
	input  textarea.Model
	width  int
	height int

	convs   []*conversation // by name
	open    *conversation   // nil while there are none
	cursor  int             // in the list of contacts
	pane    pane
	hidden  bool // the terminal is not in front
	wanted  string
	note    string // one line about what just went wrong
	backoff time.Duration
	sending bool
	queue   []outgoing
}

func newModel(b Backend, cfg Config, w *work) *model {
	cfg.Location = cmp.Or(cfg.Location, time.Local)
	if cfg.Retry <= 0 {
		cfg.Retry = time.Second
	}
	m := &model{b: b, cfg: cfg, work: w, st: newStyles(), keys: newKeys(), help: help.New(), input: textarea.New(), wanted: cfg.Open, backoff: cfg.Retry}
	m.help.Styles = help.Styles{Ellipsis: m.st.faint, ShortKey: m.st.key, ShortDesc: m.st.faint, ShortSeparator: m.st.faint, FullKey: m.st.key, FullDesc: m.st.faint, FullSeparator: m.st.faint}
	m.input.SetStyles(m.st.input())
	m.input.SetVirtualCursor(false)
	m.input.ShowLineNumbers = false
	m.input.Prompt = ""
	m.input.CharLimit = maxInput
	m.input.MaxHeight = maxLines
	m.input.KeyMap = m.keys.input()
	return m
}

// Init asks for the changes first, so that nothing falls between them and the
// contacts.
func (m *model) Init() tea.Cmd { return tea.Batch(m.input.Focus(), m.subscribe(0)) }

// What the backend answers, as messages of the UI.
type (
	subscribed struct {
		events <-chan Event
		err    error
	}
	changed struct {
		events []Event
		from   <-chan Event // closed: lost
		lost   bool
	}
	contactsCame struct {
		contacts []Contact
		err      error
	}
	pageCame struct {
		contact string
		before  int64
		msgs    []Message
		err     error
	}
	taken struct {
		outgoing
		msg Message
		err error
	}
	seenFailed struct {
		contact string
		err     error
	}
)

func (m *model) subscribe(after time.Duration) tea.Cmd {
	return m.work.wait(func(ctx context.Context) tea.Msg {
		if pause.For(ctx, after) != nil {
			return nil
		}
		c, err := m.b.Events(ctx)
		return subscribed{c, err}
	})
}

// next waits for a change and takes what else is there by then.
func (m *model) next(c <-chan Event) tea.Cmd {
	return m.work.wait(func(ctx context.Context) tea.Msg {
		got := changed{from: c}
		select {
		case e, ok := <-c:
			if !ok {
				return changed{lost: true}
			}
			got.events = append(got.events, e)
		case <-ctx.Done():
			return nil
		}
		for len(got.events) < maxBatch {
			select {
			case e, ok := <-c:
				if !ok { // the next call finds that again
					return got
				}
				got.events = append(got.events, e)
			default:
				return got
			}
		}
		return got
	})
}

func (m *model) loadContacts() tea.Cmd {
	return m.work.call(func(ctx context.Context) tea.Msg {
		k, err := m.b.Contacts(ctx)
		return contactsCame{k, err}
	})
}

// load asks for the page before a Seq, 0 for the newest one.
func (m *model) load(c *conversation, before int64) tea.Cmd {
	c.loading = true
	id := c.ID
	return m.work.call(func(ctx context.Context) tea.Msg {
		msgs, err := m.b.History(ctx, id, before, page)
		return pageCame{id, before, msgs, err}
	})
}

// find returns the conversation with a contact, or nil.
func (m *model) find(id string) *conversation {
	i := slices.IndexFunc(m.convs, func(c *conversation) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return m.convs[i]
}

// sort keeps the list in the order of names, and the cursor on its contact.
func (m *model) sort() {
	var at *conversation
	if m.cursor < len(m.convs) {
		at = m.convs[m.cursor]
	}
	slices.SortStableFunc(m.convs, func(a, b *conversation) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)), strings.Compare(a.ID, b.ID))
	})
	m.cursor = max(slices.Index(m.convs, at), 0)
}
