package dht

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"peerlink/identity"
)

// An invite is a signed statement: see docs/protocol.md, "Invite codes". It says that
// its device can be asked about what was said together with the number. All can find
// it by trying numbers, so nothing else stands in it.
//
//	[version, key bytes (DER SubjectPublicKeyInfo), number, published ms, expires ms]

// Bounds of an invite. That of a device of ours has about 200 bytes.
const (
	maxInviteLen      = 1 << 10
	maxInviteKey      = 128 // DER of a P-256 key: 91
	inviteFields      = 5
	invitePurpose     = "invite"
	inviteNamespace   = "invite"
	inviteKeyPrefix   = "/" + inviteNamespace + "/"
	inviteWaits       = 5 * time.Second // for one node's answer
	inviteGrace       = time.Second     // for the other half's answers, once half the nodes have told what they hold
	inviteSkew        = time.Minute     // between what a new invite says of its time, and a node's clock
	maxInvites        = 8               // of one writer that a node keeps
	maxInvitesNetwork = 64              // of one network
	// MaxInviteNumber is the highest number of an invite.
	MaxInviteNumber = 9999
	// MaxInviteLife is how long an invite is found at most.
	MaxInviteLife = 10 * time.Minute
)

var (
	// ErrNoInvite is matched by FindInvite's error when no node that was asked has
	// a valid invite of this number.
	ErrNoInvite = errors.New("nobody invites under this number")
	// ErrInviteTaken is matched by PublishInvite's error when nodes hold another
	// device's invite of this number.
	ErrInviteTaken = errors.New("another device invites under this number")
)

// invitation is what an invite says, verified.
type invitation struct {
	device             identity.DeviceID
	number             int
	published, expires time.Time
}

func inviteKey(number int) string {
	h := sha256.Sum256([]byte("peerlink/invite/" + strconv.Itoa(number)))
	return inviteKeyPrefix + hex.EncodeToString(h[:])
}

func encodeInvite(id *identity.Identity, number int, published, expires time.Time) ([]byte, error) {
	return sign(id, invitePurpose, wireVersion, id.PublicKey(), uint64(number), uint64(published.UnixMilli()), uint64(expires.UnixMilli()))
}

// decodeInvite reads and verifies what claims to be an invite under a DHT key.
// Everything cheap is checked before the signature.
func decodeInvite(b []byte, key string, now time.Time) (invitation, error) {
	inv, spki, s, err := parseInvite(b)
	switch {
	case err != nil:
		return invitation{}, err
	case key != inviteKey(inv.number):
		return invitation{}, fmt.Errorf("the invite has number %d and does not belong here", inv.number)
	}
	if err := checkLife("invite", inv.published, inv.expires, MaxInviteLife, now); err != nil {
		return invitation{}, err
	}
	inv.device, err = identity.VerifyBareKey(spki, invitePurpose, s.statement, s.signature)
	return inv, err
}

// parseInvite takes an invite apart without believing it.
func parseInvite(b []byte) (inv invitation, spki []byte, s signed, err error) {
	s, f, err := readSigned("invite", b, maxInviteLen, inviteFields)
	if err != nil {
		return inv, nil, s, err
	}
	spki = f.Bytes(maxInviteKey)
	if inv.number = int(f.Uint(MaxInviteNumber)); inv.number == 0 {
		f.Fail(errors.New("the invite has no number"))
	}
	inv.published, inv.expires = readTime(f), readTime(f)
	return inv, spki, s, f.End()
}

func isInvite(env *recpb.Record) bool {
	return strings.HasPrefix(string(env.GetKey()), inviteKeyPrefix)
}

// envelopeOf reads the library's envelope of a stored value; what is none is empty.
func envelopeOf(value []byte) *recpb.Record {
	env := new(recpb.Record)
	if proto.Unmarshal(value, env) != nil {
		return new(recpb.Record)
	}
	return env
}

// PublishInvite has this device found under a number, from 1 to MaxInviteNumber,
// until a time that is at most MaxInviteLife away. Nodes come and go: call it
// again with the same time now and then. It blocks while the network is asked,
// 10 s at most, and while it has not been joined. The error matches
// ErrInviteTaken where FindInvite would find another device, and otherwise
// os.ErrDeadlineExceeded, net.ErrClosed or what the nodes said.
func (n *Node) PublishInvite(ctx context.Context, number int, until time.Time) error {
	if n.cfg.Identity == nil {
		return errors.New("dht: invite: this node has no identity that could invite")
	}
	if left := time.Until(until); number < 1 || number > MaxInviteNumber || left <= 0 || left > MaxInviteLife {
		return fmt.Errorf("dht: invite %d for %v: want 1 to %d, and up to %v", number, left, MaxInviteNumber, MaxInviteLife)
	}
	key := inviteKey(number)
	value, err := encodeInvite(n.cfg.Identity, number, time.Now(), until)
	if err != nil {
		return fmt.Errorf("dht: invite: %w", err)
	}
	ctx, cancel := n.bound(ctx, lookupTimeout)
	defer cancel()
	if err := n.spread(ctx, key, value); err != nil {
		return n.explain(ctx, fmt.Errorf("dht: publish invite %d: %w", number, err))
	}
	return nil
}

// spread puts an invite to the nodes nearest to its key, and to this one where it
// serves. It is good if those who look for the number would find this device.
func (n *Node) spread(ctx context.Context, key string, value []byte) error {
	var mu sync.Mutex
	var refused error
	held, err := n.poll(ctx, key, inviteWaits, func(ctx context.Context, p peer.ID) ([]byte, error) {
		if p == n.host.ID() {
			if err := n.records.putOwn(key, value); err != nil {
				return nil, err
			}
			return n.holds(ctx, p, key)
		}
		other, err := n.messenger.put(ctx, p, key, value)
		if err == nil {
			return value, nil
		}
		mu.Lock()
		defer mu.Unlock()
		refused = err
		return other, nil
	})
	switch device, ok := held.winner(); {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("none of %s keeps the invite: %w", asked(held.asked), refused)
	case device != n.cfg.Identity.DeviceID():
		return ErrInviteTaken
	}
	return nil
}

// FindInvite returns the device that invites under a number. It is not proven to
// be the one that somebody means, only to exist: call it, and have it prove that.
// It blocks while the network is asked, 10 s at most, and while it has not been
// joined. The error matches ErrNoInvite, os.ErrDeadlineExceeded or net.ErrClosed.
func (n *Node) FindInvite(ctx context.Context, number int) (identity.DeviceID, error) {
	if number < 1 || number > MaxInviteNumber {
		return identity.DeviceID{}, fmt.Errorf("dht: invite %d: want 1 to %d", number, MaxInviteNumber)
	}
	ctx, cancel := n.bound(ctx, lookupTimeout)
	defer cancel()
	id, err := n.findInvite(ctx, inviteKey(number))
	if err != nil {
		return id, n.explain(ctx, fmt.Errorf("dht: look for invite %d: %w", number, err))
	}
	return id, nil
}

func (n *Node) findInvite(ctx context.Context, key string) (id identity.DeviceID, err error) {
	held, err := n.poll(ctx, key, inviteGrace, func(ctx context.Context, p peer.ID) ([]byte, error) { return n.holds(ctx, p, key) })
	if err != nil {
		return id, err
	}
	id, ok := held.winner()
	if !ok && ctx.Err() != nil {
		return id, ctx.Err()
	}
	if !ok {
		return id, ErrNoInvite
	}
	return id, nil
}

// holds returns what a node holds under a key; nil: nothing.
func (n *Node) holds(ctx context.Context, p peer.ID, key string) ([]byte, error) {
	if p == n.host.ID() {
		b, err := n.records.Get(ctx, storeKey([]byte(key)))
		return envelopeOf(b).GetValue(), err
	}
	rec, _, err := n.messenger.pm.GetValue(ctx, p, key)
	return rec.GetValue(), err
}

// poll asks the nodes nearest to an invite's key, and this one where it serves,
// what they hold under it. It waits for all, but after half of them have answered
// only so much longer.
func (n *Node) poll(ctx context.Context, key string, longer time.Duration, ask func(context.Context, peer.ID) ([]byte, error)) (ballot, error) {
	if err := n.joiner.wait(ctx); err != nil {
		return ballot{}, fmt.Errorf("no bootstrap node was reached: %w", err)
	}
	near, err := n.closest(ctx, key)
	near = n.withSelf(near, key)
	near = near[:min(len(near), bucketSize)]
	if len(near) == 0 {
		return ballot{}, errors.Join(errors.New("no node that keeps invites is known"), err)
	}
	ctx, cancel := context.WithTimeout(ctx, inviteWaits)
	defer cancel()
	type answer struct {
		rank  int
		value []byte
	}
	answers := make(chan answer, len(near))
	for rank, p := range near {
		if !n.life.Go(func(context.Context) {
			value, err := ask(ctx, p)
			if err != nil {
				value = nil
			}
			answers <- answer{rank, value}
		}) {
			return ballot{}, errClosed
		}
	}
	held := ballot{asked: len(near), votes: make(map[identity.DeviceID]vote)}
	var enough <-chan time.Time
	for i := range near {
		select {
		case a := <-answers:
			if inv, err := decodeInvite(a.value, key, time.Now()); err == nil {
				held.cast(inv.device, n.originAt(near[a.rank]), a.rank)
			}
		case <-enough:
			return held, nil
		}
		if 2*(i+1) >= len(near) && enough == nil {
			enough = time.After(longer)
		}
	}
	return held, nil
}

// originAt is where a node is that was asked.
func (n *Node) originAt(p peer.ID) origin {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		return originOf(c)
	}
	return origin{peer: p}
}
