package dht

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
)

// Bounds of the push service.
const (
	handshakeTimeout = 10 * time.Second // for all that is said before signals flow
	writeTimeout     = 10 * time.Second // for one signal to a listening device
	maxPushPeers     = 4096             // peers whose rates are known
	peerRate         = 20               // requests a second from one peer: puts and listens
	networkRate      = 10               // times that for all peers of one network
	maxHandshakes    = 1024             // streams at once that have not said what they want or are being answered
	maxPeerHandshake = 64               // of them, from one peer,
	maxNetHandshake  = 128              // and from one network
	listenerTag      = "peerlink-listener"
)

// service is the node's side of the push protocol: it reads what peers ask for
// and works the hub.
type service struct {
	host   host.Host
	hub    *hub
	values *store
	log    *slog.Logger
	drops  *drops
	now    func() time.Time
	card   *card              // this node's own device; nil: none
	only   *identity.DeviceID // a client that listens serves nobody but its own device; nil: everybody
	auto   *auto              // then, while others cannot reach it; nil: always

	public  func(netip.Addr) bool // which addresses it comes back to
	probing chan struct{}         // one for each that it does
	probes  originRates

	requests originRates
	busy     *places     // streams in their handshake
	life     *life.Group // every running handler
}

func newService(h host.Host, hb *hub, values *store, d *drops, log *slog.Logger, l *life.Group) *service {
	return &service{
		host: h, hub: hb, values: values, log: log, drops: d, now: time.Now, life: l,
		requests: requestRates(peerRate),
		public:   isPublic,
		probing:  make(chan struct{}, maxProbes),
		probes:   newOriginRates(rate.Every(probeEvery), rate.Every(probeEvery), probeBurst),
		busy:     newPlaces(maxPeerHandshake, maxNetHandshake, maxHandshakes),
	}
}

// handle is libp2p's stream handler; each stream has a goroutine of its own.
func (s *service) handle(st network.Stream) {
	if !s.life.Enter() {
		_ = st.Reset()
		return
	}
	defer s.life.Leave()
	from := originOf(st.Conn())
	if err := s.serve(st, from); err != nil {
		s.log.Debug("dht: push stream ended", "peer", from.peer.String(), "err", err)
		if !errors.Is(err, errRefused) { // a reset would overtake the reason
			_ = st.Reset()
			return
		}
	}
	_ = st.Close()
}

func (s *service) serve(st network.Stream, from origin) error {
	if err := s.busy.take(from); err != nil {
		s.drops.add(dropRate)
		return err
	}
	release := sync.OnceFunc(func() { s.busy.release(from) })
	defer release()
	if !s.requests.allow(from, s.now()) {
		s.drops.add(dropSourceRate)
		return refuse(st, "too many requests")
	}
	if err := st.SetDeadline(s.now().Add(handshakeTimeout)); err != nil {
		return err
	}
	r := bufio.NewReader(st)
	k, b, err := readFrame(r, maxHoldLen)
	switch {
	case errors.Is(err, errOversize):
		s.drops.add(dropOversize)
		return err
	case err != nil:
		return err
	case k == kindPut:
		return s.put(st, from, b, signalLife)
	case k == kindHold:
		return s.hold(st, from, b)
	case k == kindProbe:
		return s.comeBack(st, b)
	case k == kindWho:
		return s.introduce(st, b)
	case k == kindListen:
		l, err := s.admit(st, r, from, b)
		if err != nil {
			return err
		}
		release()
		return s.forward(st, r, l)
	}
	return fmt.Errorf("push: a stream began with a frame of kind %d", k)
}

var errRefused = errors.New("push: refused")

// refuse tells the peer why and returns the reason as an error that matches
// errRefused.
func refuse(w io.Writer, reason string) error {
	_, _ = w.Write(appendFrame(nil, kindRefused, []byte(reason)))
	return fmt.Errorf("%w: %s", errRefused, reason)
}

// serves reports whether this node carries signals for a device.
func (s *service) serves(id identity.DeviceID) bool { return !s.private() || *s.only == id }

// private reports whether it serves its own device alone.
func (s *service) private() bool { return s.only != nil && s.auto.addrs() == nil }

// introduce shows this device's record to whoever asks for it by its id.
func (s *service) introduce(st network.Stream, b []byte) error {
	if len(b) != idLen {
		return fmt.Errorf("push: who of %d bytes, want %d", len(b), idLen)
	}
	if s.card == nil || s.card.me.DeviceID() != identity.DeviceID(b) {
		return refuse(st, "this is another device")
	}
	rec, err := s.card.show()
	if err != nil {
		return err
	}
	_, err = st.Write(appendFrame(nil, kindRecord, rec))
	return err
}

func (s *service) hold(st network.Stream, from origin, b []byte) error {
	if len(b) < idLen+secondsLen {
		return refuse(st, "a hold of no letter")
	}
	life := min(time.Duration(binary.BigEndian.Uint16(b[idLen:]))*time.Second, MaxLetterLife)
	return s.put(st, from, append(b[:idLen:idLen], b[idLen+secondsLen:]...), life+freshness)
}

func (s *service) put(st network.Stream, from origin, b []byte, life time.Duration) error {
	if len(b) <= idLen {
		return refuse(st, "a put of no signal")
	}
	if len(b) > maxPutLen {
		s.drops.add(dropOversize)
		return errOversize
	}
	to := identity.DeviceID(b[:idLen])
	if !s.serves(to) {
		return refuse(st, "this device carries signals for nobody else")
	}
	pushed, stored := s.hub.put(s.now(), from, to, b[idLen:], life)
	status := byte(statusStored)
	switch {
	case pushed:
		status = statusPushed
	case !stored:
		return refuse(st, "no room to keep the signal")
	}
	_, err := st.Write(appendFrame(nil, kindTaken, []byte{status}))
	return err
}

// admit lets a device listen to its key once it has proven that it is its own.
func (s *service) admit(st network.Stream, r io.Reader, from origin, b []byte) (*listener, error) {
	if len(b) != idLen {
		return nil, fmt.Errorf("push: listen of %d bytes, want %d", len(b), idLen)
	}
	device := identity.DeviceID(b)
	if !s.serves(device) {
		return nil, refuse(st, "this device carries signals for nobody else")
	}
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // never fails
	if _, err := st.Write(appendFrame(nil, kindChallenge, nonce)); err != nil {
		return nil, err
	}
	proof, err := readKind(r, kindProof, maxProofLen)
	if err != nil {
		return nil, err
	}
	if err := checkProof(proof, listenStatement(nonce, device, s.host.ID(), from.peer), device, s.now()); err != nil {
		s.drops.add(dropListener)
		return nil, errors.Join(refuse(st, "the proof does not fit the device"), err)
	}
	l, err := s.hub.listen(s.now(), device, from)
	if err != nil {
		return nil, refuse(st, err.Error())
	}
	s.values.enter(device)
	clock := binary.BigEndian.AppendUint64(nil, uint64(s.now().UnixMilli()))
	if _, err := st.Write(appendFrame(nil, kindListening, clock)); err != nil {
		s.leave(l)
		return nil, err
	}
	return l, nil
}

// leave ends what admit has begun.
func (s *service) leave(l *listener) {
	s.hub.leave(l)
	s.values.leave(l.key)
}

func checkProof(proof, statement []byte, device identity.DeviceID, now time.Time) error {
	chain, sig, err := parseProof(proof)
	if err != nil {
		return err
	}
	p, err := identity.VerifyChain(chain, now)
	if err != nil {
		return err
	}
	if p.Device != device {
		return fmt.Errorf("push: device %s wants to listen to %s", p.Device.Short(), device.Short())
	}
	return p.Verify(listenPurpose, statement, sig)
}

// forward writes a listener's signals to its stream until either end goes.
func (s *service) forward(st network.Stream, r io.Reader, l *listener) error {
	s.host.ConnManager().Protect(l.from.peer, listenerTag)
	defer func() {
		s.leave(l)
		if s.hub.listening(l.from.peer) == 0 {
			s.host.ConnManager().Unprotect(l.from.peer, listenerTag)
		}
	}()
	if err := st.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.life.Go(func(context.Context) {
		// A listener says nothing more: whatever comes, its end or a byte, ends it.
		_, _ = io.ReadFull(r, make([]byte, 1))
		close(gone)
	})
	var frame []byte
	for {
		select {
		case <-gone:
			return nil
		case <-s.life.Done():
			return nil
		case reason := <-l.evict:
			return refuse(st, reason)
		case sealed := <-l.queue:
			frame = appendFrame(frame[:0], kindSignal, sealed)
			if err := st.SetWriteDeadline(s.now().Add(writeTimeout)); err != nil {
				return err
			}
			if _, err := st.Write(frame); err != nil {
				return err
			}
		}
	}
}

func (s *service) sweeper(ctx context.Context) {
	for pause.For(ctx, sweepEvery) == nil {
		s.hub.sweep(s.now())
		s.values.sweep(s.now())
	}
}
