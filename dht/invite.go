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

	kad "github.com/libp2p/go-libp2p-kad-dht"
	recpb "github.com/libp2p/go-libp2p-record/pb"
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
// ErrInviteTaken where nodes hold another device's, and otherwise
// os.ErrDeadlineExceeded, net.ErrClosed or what the nodes said.
func (n *Node) PublishInvite(ctx context.Context, number int, until time.Time) error {
	if n.cfg.Identity == nil {
		return errors.New("dht: invite: this node has no identity that could invite")
	}
	if left := time.Until(until); number < 1 || number > MaxInviteNumber || left <= 0 || left > MaxInviteLife {
		return fmt.Errorf("dht: invite %d for %v: want 1 to %d, and up to %v", number, left, MaxInviteNumber, MaxInviteLife)
	}
	value, err := encodeInvite(n.cfg.Identity, number, until.Add(-MaxInviteLife), until)
	if err != nil {
		return fmt.Errorf("dht: invite: %w", err)
	}
	ctx, cancel := n.bound(ctx, lookupTimeout)
	defer cancel()
	if err := n.spread(ctx, inviteKey(number), value); err != nil {
		return n.explain(ctx, fmt.Errorf("dht: publish invite %d: %w", number, err))
	}
	return nil
}

// spread puts an invite to the nodes nearest to its key, and to this one where it
// serves. One that holds it will do, unless another one holds another's.
func (n *Node) spread(ctx context.Context, key string, value []byte) error {
	if err := n.joiner.wait(ctx); err != nil {
		return fmt.Errorf("no bootstrap node was reached: %w", err)
	}
	var held int
	var others error
	if n.serves() {
		if err := n.records.putOwn(ctx, key, value); err != nil {
			others = err
		} else if stored, err := n.records.Get(ctx, storeKey([]byte(key))); err == nil && string(envelopeOf(stored).GetValue()) != string(value) {
			return ErrInviteTaken
		} else {
			held++
		}
	}
	near, err := n.closest(ctx, key)
	if len(near) == 0 && held == 0 {
		return errors.Join(errors.New("no node to keep the invite is known"), others, err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	taken := false
	for _, p := range near[:min(len(near), bucketSize)] {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, inviteWaits)
			defer cancel()
			other, err := n.messenger.put(ctx, p, key, value)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				held++
				return
			}
			others = err
			inv, err := decodeInvite(other, key, time.Now())
			taken = taken || err == nil && inv.device != n.cfg.Identity.DeviceID()
		})
	}
	wg.Wait()
	switch {
	case taken:
		return ErrInviteTaken
	case held == 0:
		return fmt.Errorf("none of %d nodes keeps the invite: %w", len(near), others)
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
	if err := n.joiner.wait(ctx); err != nil {
		return id, fmt.Errorf("no bootstrap node was reached: %w", err)
	}
	searching, cancel := context.WithCancel(ctx)
	defer cancel()
	values, err := n.kad.SearchValue(searching, key, kad.Quorum(0))
	if err != nil {
		return id, err
	}
	best := newest(values, func([]byte) {})
	if best == nil {
		if ctx.Err() != nil {
			return id, ctx.Err()
		}
		return id, ErrNoInvite
	}
	inv, err := decodeInvite(best, key, time.Now())
	return inv.device, err
}
