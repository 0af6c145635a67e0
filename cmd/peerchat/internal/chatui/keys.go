package chatui

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"
)

// keys are the keys of the chat; those of the input's own are in input.
type keys struct {
	send, newline, next, prev, unread, contacts, older, newer, latest, retry, help, quit key.Binding
	up, down, choose                                                                     key.Binding
}

func newKeys() keys {
	bind := func(show, does string, names ...string) key.Binding {
		return key.NewBinding(key.WithKeys(names...), key.WithHelp(show, does))
	}
	return keys{
		send:     bind("enter", "send", "enter"),
		newline:  bind("alt+enter", "new line", "alt+enter", "shift+enter", "ctrl+j"),
		contacts: bind("tab", "contacts", "tab", "shift+tab"),
		next:     bind("ctrl+n", "next chat", "ctrl+n", "alt+down"),
		prev:     bind("ctrl+p", "previous chat", "ctrl+p", "alt+up"),
		unread:   bind("ctrl+o", "next unread", "ctrl+o"),
		older:    bind("pgup", "older", "pgup"),
		newer:    bind("pgdn", "newer", "pgdown"),
		latest:   bind("ctrl+l", "latest", "ctrl+l"),
		retry:    bind("ctrl+r", "try failed again", "ctrl+r"),
		help:     bind("f1", "all keys", "f1"),
		quit:     bind("ctrl+c", "leave", "ctrl+c"),
		up:       bind("↑", "up", "up", "k"),
		down:     bind("↓", "down", "down", "j"),
		choose:   bind("enter", "open", "enter"),
	}
}

// input is the input's keys without those that mean something else here.
func (k keys) input() textarea.KeyMap {
	m := textarea.DefaultKeyMap()
	m.InsertNewline = k.newline
	m.LineNext = key.NewBinding(key.WithKeys("down"))
	m.LinePrevious = key.NewBinding(key.WithKeys("up"))
	m.PageUp, m.PageDown = key.NewBinding(), key.NewBinding()
	m.Paste = key.NewBinding() // the terminal pastes
	return m
}

// ShortHelp is the line of keys.
func (k keys) ShortHelp() []key.Binding {
	return []key.Binding{k.send, k.newline, k.contacts, k.next, k.older, k.help, k.quit}
}

// FullHelp is all keys, in columns.
func (k keys) FullHelp() [][]key.Binding {
	return [][]key.Binding{{k.send, k.newline, k.retry}, {k.contacts, k.next, k.prev, k.unread}, {k.older, k.newer, k.latest}, {k.help, k.quit}}
}

// press does what a key says.
func (m *model) press(msg tea.KeyPressMsg) tea.Cmd {
	m.note = ""
	switch {
	case key.Matches(msg, m.keys.quit):
		return tea.Quit
	case key.Matches(msg, m.keys.help):
		m.help.ShowAll = !m.help.ShowAll
		return nil
	case key.Matches(msg, m.keys.contacts):
		m.pane = inputPane + contactsPane - m.pane
		return nil
	case key.Matches(msg, m.keys.next):
		return m.step(1, func(*conversation) bool { return true })
	case key.Matches(msg, m.keys.prev):
		return m.step(-1, func(*conversation) bool { return true })
	case key.Matches(msg, m.keys.unread):
		return m.step(1, func(c *conversation) bool { return c.Unread > 0 })
	case m.pane == contactsPane:
		return m.pressInList(msg)
	default:
		return m.pressInChat(msg)
	}
}

// step opens the next conversation, in a direction, that is wanted.
func (m *model) step(by int, wanted func(*conversation) bool) tea.Cmd {
	n := len(m.convs)
	at := slices.Index(m.convs, m.open)
	for i := 1; i < n; i++ {
		if j := ((at+by*i)%n + n) % n; wanted(m.convs[j]) {
			return m.show(j)
		}
	}
	return nil
}

func (m *model) pressInList(msg tea.KeyPressMsg) tea.Cmd {
	switch {
	case key.Matches(msg, m.keys.up):
		m.cursor = max(m.cursor-1, 0)
	case key.Matches(msg, m.keys.down):
		m.cursor = max(min(m.cursor+1, len(m.convs)-1), 0)
	case key.Matches(msg, m.keys.choose):
		m.pane = inputPane
		return m.show(m.cursor)
	}
	return nil
}

func (m *model) pressInChat(msg tea.KeyPressMsg) tea.Cmd {
	switch {
	case key.Matches(msg, m.keys.send):
		return m.submit()
	case key.Matches(msg, m.keys.retry):
		return m.retry()
	case key.Matches(msg, m.keys.older):
		m.scroll(1)
	case key.Matches(msg, m.keys.newer):
		m.scroll(-1)
	case key.Matches(msg, m.keys.latest):
		if m.open != nil {
			m.open.scroll = 0
		}
	default:
		var cmd tea.Cmd
		m.input, cmd = m.input.Update(msg)
		return cmd
	}
	return nil
}

// scroll moves by all but a line of the screen.
func (m *model) scroll(pages int) {
	if m.open == nil {
		return
	}
	m.open.full = false
	m.open.scroll = max(m.open.scroll+pages*max(m.layout().messages-1, 1), 0)
}

// submit queues what was typed.
func (m *model) submit() tea.Cmd {
	text := m.input.Value()
	switch {
	case strings.TrimSpace(text) == "":
		return nil
	case m.open == nil:
		m.say("nobody to send to: there is no contact yet")
		return nil
	}
	cmd, ok := m.enqueue(text)
	if ok {
		m.input.Reset()
		m.open.scroll = 0
	}
	return cmd
}

func (m *model) enqueue(text string) (tea.Cmd, bool) {
	if len(m.queue) >= maxQueued {
		m.say("%d messages are waiting to be taken: not sent", maxQueued)
		return nil, false
	}
	m.queue = append(m.queue, outgoing{m.open.ID, text})
	return m.sendNext(), true
}

// retry sends the newest message that failed again. One that the backend never
// took leaves its place for that.
func (m *model) retry() tea.Cmd {
	if m.open == nil {
		return nil
	}
	for i, e := range slices.Backward(m.open.entries) {
		if !e.Mine || e.Mark != Failed || e.Text == "" {
			continue
		}
		cmd, ok := m.enqueue(e.Text)
		if ok && e.Seq == 0 {
			m.open.entries = slices.Delete(m.open.entries, i, i+1)
			m.open.measure()
		}
		return cmd
	}
	m.say("no message here has failed")
	return nil
}

// paste puts pasted text into the input, without what cannot be seen or does
// not fit.
func (m *model) paste(s string) {
	m.note, m.pane = "", inputPane
	room := maxInput - len(m.input.Value())
	breaks := maxLines - m.input.LineCount()
	var b strings.Builder
	left, invisible := 0, 0
	for i, r := range strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s[:min(len(s), 4*maxInput)]) {
		switch {
		case b.Len()+4 > room || r == '\n' && breaks == 0:
			left = len(s) - min(i, len(s))
		case r == '\n':
			breaks--
			b.WriteRune(r)
		case r == '\t':
			b.WriteString(strings.Repeat(" ", tabWidth))
		case unicode.IsGraphic(r) && r != unicode.ReplacementChar, r == '\u200d', r == '\u200c':
			b.WriteRune(r)
		default:
			invisible++
		}
		if left > 0 {
			break
		}
	}
	if left == 0 && len(s) > 4*maxInput {
		left = len(s) - 4*maxInput
	}
	m.input.InsertString(b.String())
	switch {
	case left > 0:
		m.say("pasted in part: %d bytes did not fit", left)
	case invisible > 0:
		m.say("pasted without %s that cannot be seen", plural(invisible, "character"))
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
