package chat

import "context"

// page is how many messages are read from the disk at once for a reader that is
// behind.
const page = 64

// Follow calls begin once it follows, and then tell with each message that is new,
// in the order of Seq, or has another Mark. However slow tell is, it is told of all:
// what no longer waits in memory is read from the disk. A Mark may be told twice.
// Follow blocks until ctx or the Service ends, which is no error, or until the disk,
// begin or tell returns one.
func (s *Service) Follow(ctx context.Context, begin func() error, tell func(Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &follower{s: s, tell: tell}
	events := s.Events(ctx)
	var err error
	if f.last, f.unsettled, err = s.cfg.Store.ends(); err == nil {
		err = begin()
	}
	for err == nil {
		m, ok := <-events
		switch {
		case ok:
			err = f.event(m)
		case ctx.Err() != nil || s.life.Ended():
			return nil
		default: // the reader was cut off
			events = s.Events(ctx)
			err = f.resume()
		}
	}
	return err
}

// follower is what one reader was told.
type follower struct {
	s    *Service
	tell func(Message) error
	last int64 // the Seq of the newest message
	// unsettled is the lowest Seq of a message whose Mark can have changed since
	// the reader was cut off.
	unsettled int64
}

func (f *follower) event(m Message) error {
	if m.Seq > f.last+1 { // another one is told of later, or never
		return f.read(f.last)
	}
	return f.pass(m)
}

// pass tells of a message, unless the reader knows it.
func (f *follower) pass(m Message) error {
	if m.Seq <= f.last && !m.Mine {
		return nil
	}
	f.last = max(f.last, m.Seq)
	return f.tell(m)
}

// resume tells what has happened since the reader was cut off.
func (f *follower) resume() (err error) {
	from := f.unsettled - 1
	if _, f.unsettled, err = f.s.cfg.Store.ends(); err != nil {
		return err
	}
	return f.read(min(from, f.last))
}

// read tells of the messages on the disk above a Seq.
func (f *follower) read(above int64) error {
	for {
		ms, err := f.s.cfg.Store.after(above, page)
		if err != nil || len(ms) == 0 {
			return err
		}
		for _, m := range ms {
			above = m.Seq
			if err := f.pass(m); err != nil {
				return err
			}
		}
	}
}
