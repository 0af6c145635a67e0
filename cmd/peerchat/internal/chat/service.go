package chat

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

const (
	// A device that cannot be reached is tried again after firstPause, doubled
	// up to lastPause; at once when it makes a link, or there is something new.
	firstPause = time.Second
	lastPause  = 5 * time.Minute
	// connectWithin bounds one try.
	connectWithin = 30 * time.Second
	// receiptWithin is how long the receiver may take to have a message on disk.
	receiptWithin = 30 * time.Second
	// atOnce is how many messages are under way on a channel before the first
	// receipt.
	atOnce = 64
	// membersEach and strangersEach are over how many channels one device, or one
	// contact, may send at once; one will do. membersAll and strangersAll are how many
	// there are in all: each may hold a message that has not come whole, of maxFrame
	// at most, which makes 150 MiB.
	membersEach, membersAll     = 16, 256
	strangersEach, strangersAll = 2, 128
	// strangersRate is how many messages of strangers are stored in a second: each is
	// a write of its own to the disk, which contacts wait for. More are slowed down.
	strangersRate = 32
	// maxEvents is how many events wait for one reader.
	maxEvents = 1024
)

// Net is what the exchange needs; *peerlink.ConnectionManager has it.
type Net interface {
	ConnectDevice(ctx context.Context, peer identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error)
	Listen(pattern string) (net.Listener, error)
	Events(ctx context.Context) iter.Seq[peerlink.Event]
}

// Config is what a Service is made of; Store and Net are required and stay the
// caller's.
type Config struct {
	Store *Store
	Net   Net
	// Member reports whether room of its own is kept for a peer. It must not block,
	// and is called concurrently, and with nothing but a device's id, too. nil: all
	// peers are strangers.
	Member func(peer identity.Peer) bool
	// Logger gets what nobody is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Service exchanges messages. Its methods may be called concurrently.
type Service struct {
	cfg  Config
	l    net.Listener
	life life.Group
	// places are for channels of those that send.
	places *quota.Quota[identity.DeviceID]
	rate   *rate.Limiter // of strangers' messages

	mu      sync.Mutex
	senders map[identity.DeviceID]chan struct{} // wakes the one who sends to a device
	readers map[chan Message]struct{}
	over    bool
}

// New begins to take messages, and to send those that wait. Close it before
// what it was given.
func New(cfg Config) (*Service, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Member == nil {
		cfg.Member = func(identity.Peer) bool { return false }
	}
	cfg.Store.known = func(id identity.DeviceID) bool { return cfg.Member(identity.Peer{Device: id}) }
	l, err := cfg.Net.Listen(URI)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, l: l,
		places:  quota.NewPools[identity.DeviceID](quota.Limits{Each: membersEach, All: membersAll}, quota.Limits{Each: strangersEach, All: strangersAll}),
		rate:    rate.NewLimiter(strangersRate, 2*strangersRate),
		senders: map[identity.DeviceID]chan struct{}{}, readers: map[chan Message]struct{}{},
	}
	to, err := s.cfg.Store.waitingFor()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	for _, peer := range to {
		s.wake(peer)
	}
	s.life.Go(s.accept)
	s.life.Go(s.watch)
	return s, nil
}

// Close ends all exchanges; what has no receipt is sent again after the next
// New.
func (s *Service) Close() error {
	s.life.End()
	err := s.l.Close()
	s.life.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true // and so a second call finds no readers
	for r := range s.readers {
		delete(s.readers, r)
		close(r)
	}
	return err
}

// Send stores a message for a device and returns it; it is delivered as soon as
// the device can be reached. What was said with a device to which somebody writes is
// kept, member or not. The error matches ErrFull.
func (s *Service) Send(to identity.DeviceID, text string) (Message, error) {
	return s.send(to, text, member)
}

// Reply is Send for what a program says by itself to each that writes: a stranger's
// message and the reply make no room for each other.
func (s *Service) Reply(to identity.DeviceID, text string) (Message, error) {
	return s.send(to, text, stranger)
}

func (s *Service) send(to identity.DeviceID, text string, by standing) (Message, error) {
	if err := CheckText(text); err != nil {
		return Message{}, err
	}
	m := Message{Peer: to, Mine: true, Text: text, At: time.Now()}
	_, _ = rand.Read(m.ID[:]) // never fails
	m, _, err := s.cfg.Store.add(m, by)
	if err != nil {
		return Message{}, err
	}
	s.tell(m)
	s.wake(to)
	return m, nil
}

// Events returns a channel of the messages that are new from now on, or whose Mark
// changes. It is closed when ctx
// ends, with the Service, or because its reader is 1 024 events behind. Follow
// cuts no reader off.
func (s *Service) Events(ctx context.Context) <-chan Message {
	r := make(chan Message, maxEvents)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		close(r)
		return r
	}
	s.readers[r] = struct{}{}
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.readers[r]; ok {
			delete(s.readers, r)
			close(r)
		}
	})
	return r
}

func (s *Service) tell(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		select {
		case r <- m:
		default:
			delete(s.readers, r)
			close(r)
		}
	}
}

// watch wakes who sends to a device that has just made a link.
func (s *Service) watch(ctx context.Context) {
	for e := range s.cfg.Net.Events(ctx) {
		if e.Kind != peerlink.LinkUp {
			continue
		}
		s.mu.Lock()
		c := s.senders[e.Peer.Device]
		s.mu.Unlock()
		if c != nil {
			pause.Tell(c, struct{}{})
		}
	}
}

// wake has somebody send what waits for a device.
func (s *Service) wake(to identity.DeviceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.senders[to]; c != nil {
		pause.Tell(c, struct{}{})
		return
	}
	c := make(chan struct{}, 1)
	if s.life.Go(func(ctx context.Context) { s.sendTo(ctx, to, c) }) {
		s.senders[to] = c
	}
}

// sendTo sends until nothing waits for a device.
func (s *Service) sendTo(ctx context.Context, to identity.DeviceID, wake chan struct{}) {
	pauses := pause.Backoff(firstPause, lastPause)
	for ctx.Err() == nil {
		err := s.deliver(to)
		if err == nil {
			if s.leave(to, wake) {
				return
			}
			pauses.Reset()
			continue
		}
		s.cfg.Logger.Debug("chat: messages wait", "to", to, "err", err)
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-wake:
			pauses.Reset()
		case <-ctx.Done():
		}
	}
}

// leave ends a sender, unless there is something new.
func (s *Service) leave(to identity.DeviceID, wake chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-wake:
		return false
	default:
	}
	delete(s.senders, to)
	return true
}

// deliver sends all that waits for a device, over one channel.
func (s *Service) deliver(to identity.DeviceID) error {
	batch, err := s.cfg.Store.waiting(to, atOnce)
	if err != nil || len(batch) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(s.life.Context(), connectWithin)
	defer cancel()
	conn, err := s.cfg.Net.ConnectDevice(ctx, to, URI, peerlink.ConnectOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(s.life.Context(), func() { _ = conn.Close() })
	defer stop()
	ms := peerlink.NewMessages(conn)
	ms.Limit = maxFrame
	for len(batch) > 0 {
		if err := s.exchange(conn, ms, batch); err != nil {
			return err
		}
		if batch, err = s.cfg.Store.waiting(to, atOnce); err != nil {
			return err
		}
	}
	return conn.CloseWrite()
}

// exchange sends a few messages and reads their receipts, which come in order.
func (s *Service) exchange(conn net.Conn, ms *peerlink.Messages, batch []Message) error {
	sent := make(chan error, 1)
	_ = conn.SetDeadline(time.Now().Add(receiptWithin))
	go func() {
		for _, m := range batch {
			b, err := encode(m)
			if err == nil {
				err = ms.Send(b)
			}
			if err != nil {
				_ = conn.SetReadDeadline(time.Unix(1, 0)) // no receipt will come
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	err := s.receipts(ms, batch)
	if err != nil {
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
	}
	return errors.Join(err, <-sent)
}

func (s *Service) receipts(ms *peerlink.Messages, batch []Message) error {
	for _, m := range batch {
		b, err := ms.Receive()
		if err != nil {
			return err
		}
		id, why, err := decodeReceipt(b)
		if err != nil {
			return err
		}
		if id != m.ID {
			return errProtocol
		}
		if m.Mark = Delivered; why != "" {
			m.Mark, m.Reason = Failed, why
		}
		if err := s.cfg.Store.mark(m.Seq, m.Mark, m.Reason); err != nil {
			return err
		}
		s.tell(m)
	}
	return nil
}

// accept takes messages of others.
func (s *Service) accept(context.Context) {
	for {
		conn, err := s.l.Accept()
		if err != nil {
			return
		}
		peer, ok := peerlink.PeerOf(conn)
		by, give := stranger, s.places.TakeStranger
		if ok && s.cfg.Member(peer) {
			by, give = member, s.places.Take
		}
		if !ok || give(peer.Device) != nil {
			_ = conn.Close() // without a receipt all comes again
			continue
		}
		if !s.life.Go(func(ctx context.Context) {
			defer s.places.Release(peer.Device)
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			err := s.take(ctx, conn, peer.Device, by)
			level := slog.LevelDebug
			if errors.Is(err, ErrFull) {
				level = slog.LevelWarn
			}
			s.cfg.Logger.Log(ctx, level, "chat: a device's messages have ended", "from", peer, "err", err)
		}) {
			s.places.Release(peer.Device)
			_ = conn.Close()
			return
		}
	}
}

// take stores a device's messages and says so, until there are no more; the
// error, which is io.EOF after a clean end, says why. A message for which there is no
// receipt comes again.
func (s *Service) take(ctx context.Context, conn net.Conn, from identity.DeviceID, by standing) error {
	ms := peerlink.NewMessages(conn)
	ms.Limit = maxFrame
	idle := lastPause
	if by == stranger {
		idle = receiptWithin
	}
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idle))
		b, err := ms.Receive()
		if err != nil {
			return err
		}
		m, err := decode(b)
		if err != nil {
			return err
		}
		m.Peer = from
		if y := m.At.Year(); y < 1970 || y > 9999 { // a clock that was never set
			m.At = time.Now()
		}
		if by == stranger {
			if err := s.rate.Wait(ctx); err != nil {
				return err
			}
		}
		r := receipt{Ack: hexOf(m.ID)}
		if err := CheckText(m.Text); err != nil {
			r = receipt{No: hexOf(m.ID), Why: err.Error()}
		} else if stored, added, err := s.cfg.Store.add(m, by); err != nil {
			return err
		} else if added {
			s.tell(stored)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(receiptWithin))
		if err := send(ms, r); err != nil {
			return err
		}
	}
}
