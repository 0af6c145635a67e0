package switchboard

import (
	"errors"

	"github.com/coder/websocket"
)

// Bounds of what waits. Each kind of line has a budget of its own, so that letters
// for strangers' lines do not take the room of members' lines; and in each line
// strangers' letters leave half to the letters of members.
const (
	// queueLen is how many messages may wait for one line.
	queueLen = 64
	// lineBytes is how much letters that wait for one line may have: ten of full
	// length; an offer of a call has about 6 KiB.
	lineBytes = 256 << 10
	// boardBytes is how much they may have for all lines of a kind.
	boardBytes = 16 << 20
)

// kind is whether a device has room of its own.
type kind int

const (
	strangers kind = iota
	members
	kinds
)

// queued is a message that waits for a line: an answer, or a letter as it will be
// written, so that the writer needs no more memory than is counted.
type queued struct {
	answer frame
	letter []byte
	from   kind // of a letter: its sender
}

// waiting is what letters take in a line's queue.
type waiting struct{ letters, bytes int }

var errSlow = errors.New("the line was too slow: more waited for it than for any other, and there was no room left")

// pass hands a letter on and tells how that went. It does not wait. Where all lines
// of the recipient's kind have too much to read, the line with most ends, unless
// that is the recipient's own.
func (s *Server) pass(from kind, f frame) op {
	letter, err := frame{op: opLetter, body: f.body}.encode()
	if err != nil {
		return opBusy // it was as long when it came, so it fits
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to, n := s.members[f.device], len(letter)
	switch {
	case to == nil:
		return opAbsent
	case string(to.sum[:]) != string(f.extra):
		return opStale
	}
	mine, share := &to.letters[from], 1
	if from == strangers {
		share = 2
	}
	if mine.letters >= queueLen/share || mine.bytes+n > lineBytes/share || !s.makeRoom(to, n) {
		return opBusy
	}
	select {
	case to.outc <- queued{letter: letter, from: from}:
	default:
		return opBusy
	}
	mine.letters++
	mine.bytes += n
	s.waiting[to.kind] += n
	return opTaken
}

// makeRoom reports whether there is room for n bytes more for a line, if need be by
// ending slower ones. The caller holds mu.
func (s *Server) makeRoom(to *member, n int) bool {
	for s.waiting[to.kind]+n > boardBytes {
		slowest := to
		for _, m := range s.members {
			if m.kind == to.kind && m.bytes() > slowest.bytes() {
				slowest = m
			}
		}
		if slowest == to {
			return false
		}
		s.cutOff(slowest, errSlow)
	}
	return true
}

// bytes is what the letters that wait for a line have.
func (m *member) bytes() int { return m.letters[strangers].bytes + m.letters[members].bytes }

// written gives back the room of a letter that waits no more.
func (s *Server) written(m *member, q queued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.letter != nil && !m.cut {
		m.letters[q.from].letters--
		m.letters[q.from].bytes -= len(q.letter)
		s.waiting[m.kind] -= len(q.letter)
	}
}

// cutOff ends a line, once: it gives its place back and drops what waits for it. Its
// goodbye is as good as unproven: it has a place among those, or there is none. The
// caller holds mu.
func (s *Server) cutOff(m *member, why error) {
	if m.cut {
		return
	}
	m.cut = true
	delete(s.members, m.peer.Device)
	if m.kind == members {
		s.own.Release(m.peer.Device)
	} else {
		s.lines.Release(m.at)
	}
	s.waiting[m.kind] -= m.bytes()
	m.letters = [kinds]waiting{}
	m.leaving = goodbye(why) != 0 && s.joining.Take(m.at) == nil
	m.end(why)
	for {
		select {
		case <-m.outc:
		default:
			return
		}
	}
}

// goodbye is the code with which a line that the server cuts off is told why; 0: it
// is told nothing.
func goodbye(why error) websocket.StatusCode {
	switch {
	case errors.Is(why, errReplaced):
		return statusReplaced
	case errors.Is(why, errFull):
		return websocket.StatusTryAgainLater
	}
	return 0
}
