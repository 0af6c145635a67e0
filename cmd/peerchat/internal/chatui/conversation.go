package chatui

import (
	"cmp"
	"slices"
	"time"
)

// Bounds of what is kept in memory, and how much is asked for at once.
const (
	page       = 40      // messages: a screen and more, so that scrolling seldom waits
	maxHeld    = 2000    // messages of the open conversation: fifty pages
	maxHeldMem = 8 << 20 // and their bytes
	maxClosed  = 100     // messages of another one: some screens
	maxPending = 512     // messages that come while a page is read
)

// conversation is a contact and the messages that were loaded.
type conversation struct {
	Contact
	name    string // as shown
	entries []entry
	size    int    // bytes, about
	loaded  bool   // the newest page is here
	loading bool   // a page is asked for
	whole   bool   // nothing older exists
	full    bool   // nothing older is loaded
	draft   string // what was typed when another one was opened
	scroll  int    // lines below the screen
	seen    int64  // the newest Seq that Seen was told

	// What came while a page was asked for: the page may be older than that.
	pending []Message
	again   bool // more came than pending holds
}

// set takes a contact as the backend knows it.
func (c *conversation) set(k Contact) {
	c.Contact, c.name = k, oneLine(k.Name, maxName)
	if c.name == "" {
		c.name = oneLine(k.ID, 12)
	}
	c.Detail = oneLine(k.Detail, maxReason)
	for i := range c.entries {
		c.entries[i].width = 0 // the name may have changed
	}
}

// newest is the Seq of the newest message, 0 for none.
func (c *conversation) newest() int64 {
	for _, e := range slices.Backward(c.entries) {
		if e.Seq != 0 {
			return e.Seq
		}
	}
	return 0
}

// oldest is the Seq before which older messages are asked for, 0 for none.
func (c *conversation) oldest() int64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[0].Seq
}

// add puts a message where it belongs, over the one with its Seq. It reports
// whether it is new. One older than all that are loaded waits for its page.
func (c *conversation) add(m Message, loc *time.Location) bool {
	e := newEntry(m, loc)
	if m.Seq == 0 { // not taken by the backend: stays at the end
		c.entries = append(c.entries, e)
		c.size += e.size()
		return true
	}
	i, found := slices.BinarySearchFunc(c.entries, m.Seq, func(e entry, seq int64) int {
		if e.Seq == 0 {
			return 1
		}
		return cmp.Compare(e.Seq, seq)
	})
	if found {
		c.size += e.size() - c.entries[i].size()
		c.entries[i] = e
		return false
	}
	if i == 0 && !c.whole && len(c.entries) > 0 && c.entries[0].Seq != 0 {
		return false
	}
	c.entries = slices.Insert(c.entries, i, e)
	c.size += e.size()
	return true
}

// join takes a page: messages before the Seq that was asked for, or the newest
// ones. What is newest may lie beyond a gap, then what was there goes.
func (c *conversation) join(msgs []Message, before int64, asked int, loc *time.Location) {
	c.loading = false
	msgs = slices.SortedFunc(slices.Values(msgs), func(a, b Message) int { return cmp.Compare(a.Seq, b.Seq) })
	if before == 0 && len(msgs) == asked && c.newest() != 0 && msgs[0].Seq > c.newest() {
		c.entries = slices.DeleteFunc(c.entries, func(e entry) bool { return e.Seq != 0 })
		c.whole, c.scroll = false, 0
		c.measure()
	}
	known, oldest := c.whole, c.oldest()
	c.whole = true // lets those of the page in front of all others
	for _, m := range msgs {
		if m.Seq > 0 {
			c.add(m, loc)
		}
	}
	stuck := c.oldest() == oldest && (before > 0 || oldest == 0) // a page without anything older
	c.whole = known || len(msgs) < asked || stuck
	c.loaded = true
	for _, m := range c.pending {
		c.add(m, loc)
	}
	c.pending = nil
}

// keep puts a message aside until the page that was asked for is here. With
// early it is what is known of the message without any change to it.
func (c *conversation) keep(m Message, early bool) {
	switch {
	case !c.loading:
	case len(c.pending) >= maxPending:
		c.again = true
	case early:
		c.pending = slices.Insert(c.pending, 0, m)
	default:
		c.pending = append(c.pending, m)
	}
}

// has reports whether a message is held.
func (c *conversation) has(seq int64) bool {
	return slices.ContainsFunc(c.entries, func(e entry) bool { return e.Seq == seq })
}

// trim forgets the oldest messages beyond the bounds.
func (c *conversation) trim(count, size int) {
	n := max(len(c.entries)-count, 0)
	for rest := c.size; n < len(c.entries) && rest > size; n++ {
		rest -= c.entries[n].size()
	}
	if n == 0 {
		return
	}
	c.entries = slices.Delete(c.entries, 0, n)
	c.whole = false
	c.measure()
}

func (c *conversation) measure() {
	c.size = 0
	for i := range c.entries {
		c.size += c.entries[i].size()
	}
}

// close gives back the memory of a conversation that is not open.
func (c *conversation) close() {
	c.trim(maxClosed, maxHeldMem/8)
	c.scroll, c.full = 0, false
	for i := range c.entries {
		c.entries[i].width, c.entries[i].lines = 0, nil
	}
}

// lines returns up to height lines that end c.scroll lines above the newest,
// and whether the first of all is among them. It corrects a scroll beyond the
// beginning.
func (c *conversation) lines(width, height int, loc *time.Location, st *styles) (shown []string, top bool) {
	var back []string // from the newest up
	for i := len(c.entries) - 1; i >= 0 && len(back) < c.scroll+height; i-- {
		e := &c.entries[i]
		for _, l := range slices.Backward(e.render(c.name, loc, width, st)) {
			back = append(back, l)
		}
		if e.Seq != 0 && (i == 0 || c.entries[i-1].day != e.day) {
			back = append(back, st.faint.Render(wrap("— "+e.day+" —", width)[0]))
		}
		top = i == 0
	}
	if top = top || len(c.entries) == 0; top {
		top = len(back) <= c.scroll+height
		c.scroll = max(min(c.scroll, len(back)-height), 0)
	}
	back = back[min(c.scroll, len(back)):min(c.scroll+height, len(back))]
	slices.Reverse(back)
	return back, top
}

// heightOf is how many lines a message takes, for the screen to stay
// where it is when one comes while the user reads older ones.
func (c *conversation) heightOf(i, width int, loc *time.Location, st *styles) int {
	n := len(c.entries[i].render(c.name, loc, width, st))
	if i == 0 || c.entries[i-1].day != c.entries[i].day {
		n++
	}
	return n
}
