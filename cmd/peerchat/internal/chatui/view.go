package chatui

import (
	"fmt"
	"strings"

	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// styles are of the sixteen colours that the user's terminal defines, so that
// they fit a light background and a dark one.
type styles struct {
	me, them, faint, bad, key, title, chosen, online, unread lipgloss.Style
}

func newStyles() styles {
	s := lipgloss.NewStyle
	return styles{
		me:     s().Foreground(lipgloss.Green).Bold(true),
		them:   s().Foreground(lipgloss.Cyan).Bold(true),
		faint:  s().Faint(true),
		bad:    s().Foreground(lipgloss.Red),
		key:    s().Bold(true),
		title:  s().Bold(true),
		chosen: s().Reverse(true),
		online: s().Foreground(lipgloss.Green),
		unread: s().Foreground(lipgloss.Yellow).Bold(true),
	}
}

func (s styles) input() textarea.Styles {
	var t textarea.Styles
	t.Focused.Placeholder, t.Blurred.Placeholder = s.faint, s.faint
	t.Cursor.Shape = tea.CursorBar
	return t
}

// layout is where what stands. Below some sizes parts are left out.
type layout struct {
	list         int // columns of the contacts, 0 for none
	chat         int // columns of the conversation
	header       int // lines, each 0 or 1 but for the last two
	help         int
	note         int
	input        int
	messages     int
	conversation bool // it is on the screen
}

// From these sizes on there is room for both panes, and for lines beside the
// messages and the input.
const (
	twoPanes   = 56
	forHeader  = 4
	forHelp    = 6
	leastInput = 8 // lines of the screen, for an input of several
)

func (m *model) layout() layout {
	l := layout{chat: max(m.width, 1), conversation: true}
	if m.width >= twoPanes {
		l.list = min(max(m.width/4, 18), 28)
		l.chat = m.width - l.list - 1
	} else {
		l.conversation = m.pane == inputPane
	}
	if m.height >= forHeader {
		l.header = 1
	}
	if m.height >= forHelp {
		l.help = 1
	}
	if m.note != "" && m.height > 1 {
		l.note = 1
	}
	l.input = 1
	if m.height >= leastInput {
		rows := 0
		for line := range strings.SplitSeq(m.input.Value(), "\n") {
			rows += ansi.StringWidth(line)/max(l.chat-2, 1) + 1
		}
		l.input = min(max(rows, 1), m.height/3)
	}
	l.messages = max(m.height-l.header-l.help-l.note-l.input-l.rule(), 0)
	return l
}

// rule is the line between the messages and the input.
func (l layout) rule() int { return l.help }

// View draws the screen.
func (m *model) View() tea.View {
	var v tea.View
	v.AltScreen, v.ReportFocus = true, true
	v.WindowTitle = "peerchat"
	unread := 0
	for _, c := range m.convs {
		unread += c.Unread
	}
	if unread > 0 {
		v.WindowTitle = fmt.Sprintf("peerchat (%d)", unread)
	}
	if m.width < 1 || m.height < 1 {
		return v
	}
	l := m.layout()
	right := []string{}
	if l.conversation {
		right = m.viewChat(l)
		if c := m.input.Cursor(); c != nil && m.pane == inputPane {
			c.X += l.listWidth() + m.inset(l)
			c.Y += len(right) - l.input - l.help
			v.Cursor = c
		}
	}
	v.Content = strings.Join(m.frame(l, right), "\n")
	return v
}

func (l layout) listWidth() int {
	if l.list == 0 {
		return 0
	}
	return l.list + 1
}

// frame puts the panes beside each other, exactly as high and wide as the
// screen.
func (m *model) frame(l layout, right []string) []string {
	var left []string
	listWidth := l.list
	if !l.conversation {
		listWidth = m.width
	}
	if listWidth > 0 {
		left = m.viewContacts(listWidth, m.height)
	}
	out := make([]string, m.height)
	for i := range out {
		var line strings.Builder
		if listWidth > 0 {
			line.WriteString(pad(at(left, i), listWidth))
		}
		if l.list > 0 {
			line.WriteString(m.st.faint.Render("│"))
		}
		if l.conversation {
			line.WriteString(pad(at(right, i), l.chat))
		}
		out[i] = line.String()
	}
	return out
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// pad makes a line exactly width columns wide.
func pad(s string, width int) string {
	if w := ansi.StringWidth(s); w < width {
		return s + strings.Repeat(" ", width-w)
	} else if w > width {
		return pad(ansi.Truncate(s, width, ""), width) // a wide character may leave a column
	}
	return s
}

// inset is the width of the prompt.
func (m *model) inset(l layout) int {
	if l.chat >= 10 {
		return 2
	}
	return 0
}

// viewChat is the right pane, from the header to the keys.
func (m *model) viewChat(l layout) []string {
	var out []string
	if l.header > 0 {
		out = append(out, m.viewHeader(l.chat))
	}
	switch {
	case m.help.ShowAll:
		out = append(out, m.viewHelp(l)...)
	default:
		out = append(out, m.viewMessages(l)...)
	}
	if l.rule() > 0 {
		out = append(out, m.st.faint.Render(strings.Repeat("─", l.chat)))
	}
	if l.note > 0 {
		out = append(out, m.st.bad.Render(ansi.Truncate(m.note, l.chat, "…")))
	}
	out = append(out, m.viewInput(l)...)
	if l.help > 0 {
		m.help.SetWidth(max(l.chat, 1))
		short := m.help
		short.ShowAll = false
		out = append(out, short.View(m.keys))
	}
	return out
}

func (m *model) viewHeader(width int) string {
	c := m.open
	if c == nil {
		return m.st.title.Render(ansi.Truncate("no contact yet", width, "…"))
	}
	s := m.presence(c) + " " + m.st.title.Render(c.name)
	if waiting := len(m.queue); waiting > 0 || m.sending {
		s += m.st.faint.Render(fmt.Sprintf("  %d waiting", waiting+1))
	}
	if c.Detail != "" {
		s += m.st.faint.Render("  " + c.Detail)
	}
	if c.scroll > 0 {
		s += m.st.unread.Render("  " + plural(c.scroll, "line") + " below")
	}
	return ansi.Truncate(s, width, "…")
}

// viewMessages is exactly as high as there is room, the newest at the bottom.
func (m *model) viewMessages(l layout) []string {
	var lines []string
	if c := m.open; c != nil && l.messages > 0 {
		var top bool
		lines, top = c.lines(l.chat, l.messages, m.cfg.Location, &m.st)
		if top && len(lines) < l.messages {
			lines = append([]string{m.st.faint.Render(ansi.Truncate(c.beginning(), l.chat, "…"))}, lines...)
		}
	}
	return append(make([]string, max(l.messages-len(lines), 0)), lines...)
}

// beginning says why nothing stands above the first message.
func (c *conversation) beginning() string {
	switch {
	case c.loading:
		return "asking for messages"
	case c.full:
		return "older messages are not shown"
	case len(c.entries) == 0:
		return "no message yet"
	default:
		return ""
	}
}

func (m *model) viewHelp(l layout) []string {
	var lines []string
	for _, column := range m.keys.FullHelp() {
		for _, k := range column {
			lines = append(lines, ansi.Truncate(m.st.key.Render(pad(k.Help().Key, 10))+" "+k.Help().Desc, l.chat, "…"))
		}
	}
	lines = append(lines, m.st.faint.Render(ansi.Truncate("· queued   ✓ sent   ✓✓ delivered   ✗ not sent", l.chat, "…")))
	return append(lines, make([]string, max(l.messages-len(lines), 0))...)[:l.messages]
}

func (m *model) viewInput(l layout) []string {
	prompt := m.inset(l)
	m.input.SetWidth(max(l.chat-prompt, 1))
	m.input.SetHeight(l.input)
	lines := strings.Split(m.input.View(), "\n")
	out := make([]string, l.input)
	for i := range out {
		out[i] = strings.Repeat(" ", prompt) + at(lines, i)
		if i == 0 && prompt > 0 {
			out[i] = m.st.key.Render("›") + " " + at(lines, i)
		}
	}
	return out
}

// viewContacts is the list, with the cursor on the screen.
func (m *model) viewContacts(width, height int) []string {
	first := max(min(m.cursor-height/2, len(m.convs)-height), 0)
	var out []string
	for i := first; i < len(m.convs) && len(out) < height; i++ {
		c := m.convs[i]
		count := ""
		if c.Unread > 0 {
			count = fmt.Sprintf("%d", min(c.Unread, 999))
		}
		room := width - 3 - len(count)
		line := m.presence(c) + " " + c.name
		if room > 3 {
			line = m.presence(c) + " " + pad(ansi.Truncate(c.name, room-1, "…"), room-1) + " " + m.st.unread.Render(count)
		}
		line = pad(line, width)
		switch {
		case m.pane == contactsPane && i == m.cursor:
			line = m.st.chosen.Render(ansi.Strip(line))
		case c == m.open:
			line = m.st.title.Render(ansi.Strip(line))
		}
		out = append(out, line)
	}
	return out
}

// presence differs without colour, too.
func (m *model) presence(c *conversation) string {
	switch c.Presence {
	case Online:
		return m.st.online.Render("●")
	case Away:
		return m.st.faint.Render("○")
	default:
		return m.st.faint.Render("?")
	}
}
