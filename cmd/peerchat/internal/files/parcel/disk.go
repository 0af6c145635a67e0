package parcel

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/escape"
)

// prepareAll looks at the disk for each entry, in the order they came.
func (s *receiving) prepareAll() {
	for e := range s.preparec {
		if s.ctx.Err() != nil {
			continue
		}
		if err := s.prepare(e); err != nil {
			s.fail(e, err)
		}
	}
}

// prepare makes a folder, or finds out what of a file is wanted.
func (s *receiving) prepare(e *incoming) (err error) {
	if e.name, err = inbox.Clean(e.path); err != nil {
		return err
	}
	a, folder := s.approval, s.r.cfg.Folder
	if a != nil {
		err := a.allows(e.entry, e.name)
		if err == nil && e.folder {
			err = a.use(e.entry)
		}
		if err != nil && err != errUsed { // a folder that is here stays so
			return err
		}
	}
	if e.folder {
		if err := s.r.charge(s.from, folder.Missing(e.name)); err != nil {
			return err
		}
		if err := folder.Mkdir(e.name); err != nil {
			return err
		}
		s.keep(e, Event{Kind: Kept, Name: e.name})
		return nil
	}
	e.part, err = folder.Resume(s.ctx, inbox.Claim{
		Owner: s.from.ID, Stranger: !s.from.Member, Session: s, Yield: func() { s.cancel(errSuperseded) },
	}, e.name, int64(e.size))
	if err != nil {
		return err
	}
	// Only now: an earlier session may have given the file its name meanwhile.
	if twins := folder.Twins(s.from.ID, e.name, int64(e.size)); len(twins) > 0 {
		name, sum, err := s.same(e, twins)
		if err != nil {
			return err
		}
		if name != "" {
			e.part.Restart()
			_ = e.part.Close()
			s.keep(e, Event{Kind: Same, Name: name, Sum: sum})
			return nil
		}
	}
	return s.want(e)
}

// want asks for a file's content.
func (s *receiving) want(e *incoming) error {
	if s.approval != nil {
		if err := s.approval.room(e.entry); err != nil {
			return err
		}
	}
	if e.part.Len() == 0 {
		n := 1 + s.r.cfg.Folder.Missing(path.Dir(e.name))
		if e.size > minPiece {
			n++ // its state
		}
		if err := s.r.charge(s.from, n); err != nil {
			return err
		}
	}
	if err := e.part.Reserve(); err != nil {
		return err
	}
	m := want{index: e.index, offset: uint64(e.part.Len())}
	if m.offset > 0 {
		m.sum = e.part.Sum()
		select {
		case s.resumec <- struct{}{}:
			e.place = true
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
	s.mu.Lock()
	e.offset = int64(m.offset)
	s.mu.Unlock()
	s.now(e, wanted)
	return s.w.send(kindWant, m.elems()...)
}

// same returns the file, of those of that name and size, that has the sender's
// content; empty if none has.
func (s *receiving) same(e *incoming, twins []string) (string, digest.Sum, error) {
	s.now(e, comparing)
	if err := s.w.send(kindCompare, e.index); err != nil {
		return "", digest.Sum{}, err
	}
	var theirs digest.Sum
	for i, name := range twins {
		ours, err := s.r.cfg.Folder.Sum(s.ctx, name, int64(e.size))
		if i == 0 { // the sender has hashed as long
			select {
			case sum, ok := <-e.digestc:
				if theirs = sum; !ok {
					return "", sum, errors.New("the sender could not read it")
				}
			case <-s.ctx.Done():
				return "", digest.Sum{}, context.Cause(s.ctx)
			}
		}
		if err == nil && ours == theirs && s.r.cfg.Folder.Sent(s.from.ID, e.name, int64(e.size), ours) {
			return name, ours, nil
		}
	}
	return "", digest.Sum{}, nil
}

// storeAll writes pieces in the order they came. After a cut, too: what has come
// whole need not come again.
func (s *receiving) storeAll() {
	for p := range s.storec {
		s.store(p)
		if p.buf != nil {
			s.freec <- p.buf
		}
	}
}

func (s *receiving) store(p stored) {
	e := p.incoming
	switch {
	case e.dead:
		return
	case p.broken != nil:
		s.broken(e, p.broken)
		return
	case p.anew:
		e.part.Restart()
	case p.buf != nil:
		n := len(p.buf) - digest.Size
		if err := e.part.Write(p.buf[:n], digest.Sum(p.buf[n:])); err != nil {
			e.dead = true
			s.fail(e, err)
			return
		}
	}
	at := e.part.Len()
	s.tally.event(Event{Kind: Moved, Path: e.name, Size: int64(e.size), At: at})
	if p.buf == nil || at < int64(e.size) {
		return
	}
	s.finishc <- struct{}{}
	s.wg.Go(func() {
		defer func() { <-s.finishc }()
		s.finish(e)
	})
}

// finish gives a complete file its name.
func (s *receiving) finish(e *incoming) {
	m := inbox.Meta{Executable: e.executable, Replace: s.r.cfg.Replace}
	if e.modified > 0 {
		m.Modified = time.UnixMilli(int64(e.modified))
	}
	if a := s.approval; a != nil { // two sessions of one sender may be this far
		if err := a.use(e.entry); err != nil {
			s.fail(e, err)
			return
		}
	}
	sum := e.part.Sum()
	name, err := e.part.Keep(m)
	if err == nil {
		s.keep(e, Event{Kind: Kept, Name: name, Sum: sum})
		return
	}
	if s.approval != nil {
		s.approval.unuse(e.entry)
	}
	s.fail(e, err)
}

// keep tells both sides that an entry is there.
func (s *receiving) keep(e *incoming, ev Event) {
	ev.Path, ev.Folder, ev.Size = e.name, e.folder, int64(e.size)
	s.tally.event(ev)
	s.close(e)                                               // before the sender may announce another in its place
	_ = s.w.send(kindKept, e.index, e.name, ev.Kind == Same) // not ev.Name: its number tells of other files
}

// fail tells both sides that an entry could not be received.
func (s *receiving) fail(e *incoming, err error) {
	if s.ctx.Err() != nil {
		return // the transfer's end, not the entry's
	}
	why := reason(err)
	if part := s.abandon(e, Failed, err); part != "" {
		why += "; what came is kept there, send it again to go on"
	}
	s.close(e)
	_ = s.w.send(kindFailed, e.index, escape.Cap(why, maxReason))
}

// broken ends an entry that its sender has given up.
func (s *receiving) broken(e *incoming, err error) {
	s.abandon(e, Failed, err)
	s.close(e)
}

// abandon closes an entry's incomplete file, tells of it, and returns its name
// if it can be continued.
func (s *receiving) abandon(e *incoming, k EventKind, err error) (part string) {
	ev := Event{Kind: k, Path: e.name, Folder: e.folder, Size: int64(e.size), Err: err}
	if e.name == "" { // it could not be cleaned
		ev.Path = fmt.Sprintf("%.80q", e.path)
	}
	if e.part != nil {
		ev.Part, ev.At = e.part.Name(), e.part.Len()
		_ = e.part.Close()
	}
	if k == Failed || ev.Part != "" {
		s.tally.event(ev)
	}
	return ev.Part
}

// close takes an entry out of those under way.
func (s *receiving) close(e *incoming) {
	if e.place {
		<-s.resumec
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, e.index)
	if len(s.open) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}
