package chatui

import (
	"context"
	"fmt"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Update takes one message of the terminal or the backend.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.FocusMsg:
		m.hidden = false
	case tea.BlurMsg:
		m.hidden = true
	case tea.KeyPressMsg:
		cmd = m.press(msg)
	case tea.PasteMsg:
		m.paste(msg.Content)
	case subscribed:
		cmd = m.onSubscribed(msg)
	case changed:
		cmd = m.onChanged(msg)
	case contactsCame:
		cmd = m.onContacts(msg)
	case pageCame:
		cmd = m.onPage(msg)
	case taken:
		cmd = m.onTaken(msg)
	case seenFailed:
		m.say("not marked as read: %v", msg.err)
		if c := m.find(msg.contact); c != nil {
			c.seen = 0
		}
	}
	return m, tea.Batch(cmd, m.more(), m.markSeen())
}

// say shows a line until the next key.
func (m *model) say(format string, args ...any) {
	m.note = oneLine(fmt.Sprintf(format, args...), maxReason)
}

func (m *model) onSubscribed(s subscribed) tea.Cmd {
	if s.err != nil {
		return m.lost(s.err)
	}
	return tea.Batch(m.next(s.events), m.loadContacts())
}

// lost asks for changes again, after a while.
func (m *model) lost(err error) tea.Cmd {
	if err != nil {
		m.say("no news, trying again: %v", err)
	}
	wait := m.backoff
	m.backoff = min(2*m.backoff, max(maxRetry, m.cfg.Retry))
	return m.subscribe(wait)
}

func (m *model) onChanged(ch changed) tea.Cmd {
	if ch.lost {
		return m.lost(nil)
	}
	m.backoff = m.cfg.Retry
	for _, e := range ch.events {
		switch {
		case e.Contact != nil:
			m.upsert(*e.Contact)
		case e.Gone != "":
			m.remove(e.Gone)
		case e.Message != nil:
			m.receive(*e.Message)
		}
	}
	m.sort()
	return tea.Batch(m.next(ch.from), m.openWanted())
}

func (m *model) upsert(k Contact) {
	if k.ID == "" {
		return
	}
	c := m.find(k.ID)
	if c == nil {
		c = &conversation{}
		m.convs = append(m.convs, c)
	}
	c.set(k)
}

func (m *model) remove(id string) {
	c := m.find(id)
	if c == nil {
		return
	}
	m.convs = slices.DeleteFunc(m.convs, func(o *conversation) bool { return o == c })
	m.cursor = max(min(m.cursor, len(m.convs)-1), 0)
	if m.open == c {
		m.open = nil
		m.say("%s is no contact any more", c.name)
	}
}

// receive puts a message into its conversation, if that is loaded; else its
// page will bring it.
func (m *model) receive(msg Message) {
	c := m.find(msg.Contact)
	if c == nil || msg.Seq <= 0 {
		return
	}
	if c.keep(msg, false); !c.loaded {
		return
	}
	isNew := c.add(msg, m.cfg.Location)
	if c != m.open {
		c.trim(maxClosed, maxHeldMem/8)
		return
	}
	if isNew && c.scroll > 0 && c.newest() == msg.Seq {
		i := slices.IndexFunc(c.entries, func(e entry) bool { return e.Seq == msg.Seq })
		c.scroll += c.heightOf(i, m.layout().chat, m.cfg.Location, &m.st)
	}
	c.trim(maxHeld, maxHeldMem)
}

// onContacts takes all contacts: those that are not among them are gone.
func (m *model) onContacts(k contactsCame) tea.Cmd {
	if k.err != nil {
		m.say("no contacts: %v", k.err)
		return nil
	}
	known := make(map[string]bool, len(k.contacts))
	for _, c := range k.contacts {
		known[c.ID] = true
		m.upsert(c)
	}
	for _, c := range slices.Clone(m.convs) {
		if !known[c.ID] {
			m.remove(c.ID)
		}
		c.loaded = false // what changed meanwhile is in the newest page
	}
	m.sort()
	if m.open != nil {
		return m.load(m.open, 0)
	}
	return m.openWanted()
}

// openWanted opens the contact that was asked for, else the first one.
func (m *model) openWanted() tea.Cmd {
	if m.open != nil || len(m.convs) == 0 {
		return nil
	}
	i := max(slices.IndexFunc(m.convs, func(c *conversation) bool { return c.ID == m.wanted }), 0)
	return m.show(i)
}

// show opens a conversation.
func (m *model) show(i int) tea.Cmd {
	if i < 0 || i >= len(m.convs) || m.convs[i] == m.open {
		return nil
	}
	if m.open != nil {
		m.open.draft = m.input.Value()
		m.open.close()
		m.input.SetValue(m.convs[i].draft)
	} // else what was typed was for nobody yet, or for one who is gone
	m.open, m.cursor, m.wanted = m.convs[i], i, m.convs[i].ID
	if m.open.loaded || m.open.loading {
		return nil
	}
	return m.load(m.open, 0)
}

func (m *model) onPage(p pageCame) tea.Cmd {
	c := m.find(p.contact)
	if c == nil {
		return nil
	}
	if p.err != nil {
		c.loading, c.full, c.pending = false, true, nil
		m.say("no history: %v", p.err)
		return nil
	}
	c.join(p.msgs, p.before, page, m.cfg.Location)
	if c != m.open {
		c.close()
	}
	if c.again {
		c.again = false
		return m.load(c, 0)
	}
	return nil
}

// more asks for older messages when the beginning of what is loaded is on the
// screen.
func (m *model) more() tea.Cmd {
	c := m.open
	if c == nil || !c.loaded || c.loading || c.whole || c.full {
		return nil
	}
	if len(c.entries) >= maxHeld || c.size >= maxHeldMem {
		c.full = true
		return nil
	}
	l := m.layout()
	if _, top := c.lines(l.chat, max(l.messages, 1), m.cfg.Location, &m.st); !top {
		return nil
	}
	return m.load(c, c.oldest())
}

// markSeen tells the backend what is on the screen.
func (m *model) markSeen() tea.Cmd {
	c := m.open
	if c == nil || m.hidden || !c.loaded || c.scroll > 0 || !m.layout().conversation {
		return nil
	}
	seq := c.newest()
	if seq <= c.seen {
		return nil
	}
	c.seen, c.Unread = seq, 0
	id := c.ID
	return m.work.call(func(ctx context.Context) tea.Msg {
		if err := m.b.Seen(ctx, id, seq); err != nil {
			return seenFailed{id, err}
		}
		return nil
	})
}

// onTaken notes what became of a message and sends the next one.
func (m *model) onTaken(t taken) tea.Cmd {
	m.sending = false
	msg := t.msg
	if t.err != nil {
		msg = Message{Contact: t.contact, Mine: true, Text: t.text, Mark: Failed, Reason: t.err.Error(), Time: time.Time{}}
	}
	if c := m.find(t.contact); c != nil {
		if msg.Seq != 0 {
			c.keep(msg, true)
		}
		if msg.Seq == 0 || c.loaded && !c.has(msg.Seq) { // else a change has told more of it
			c.add(msg, m.cfg.Location)
		}
	}
	return m.sendNext()
}

func (m *model) sendNext() tea.Cmd {
	if m.sending || len(m.queue) == 0 {
		return nil
	}
	o := m.queue[0]
	m.queue = m.queue[1:]
	m.sending = true
	return m.work.call(func(ctx context.Context) tea.Msg {
		msg, err := m.b.Send(ctx, o.contact, o.text)
		if err == nil && msg.Seq <= 0 {
			err = fmt.Errorf("the message has no number")
		}
		return taken{o, msg, err}
	})
}
