package dht

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/quota"
)

// Bounds of what an inbox remembers.
const (
	maxSources  = 256  // nodes whose rates are known
	maxSenders  = 1024 // devices whose rates are known
	letterRate  = 10   // letters a second of members, and of strangers, four seconds' worth at once
	letterQueue = 64   // letters of either that wait for ReceiveLetter: at most 1 MiB
	// openShare is how many signals are opened for one of a stranger that is verified:
	// who has sent a signal stands within. At the defaults a flood then costs at most
	// 60 ms of CPU a second for opening and 20 ms for verifying (0.12 and 0.19 ms for
	// one, on a server of 2023), or 95 ms if all claim to be a member's.
	openShare = 5
	// burstSeconds is how many seconds' worth of a rate may come at once.
	burstSeconds = 4
	// logEvery spaces out what a hostile peer could make us log.
	logEvery = 10 * time.Second
)

// inbox decides about every sealed message that a node hands to this device.
// What costs most comes last: size, the node's rate, duplicates by digest, the
// rate in all; only then is it opened, then read; what does not claim to be of a
// member of the trust store has to keep the rate of strangers; and only then are
// signatures verified. Places in the queues are given after that. It never blocks.
// Its methods may be called concurrently.
type inbox struct {
	me    *identity.Identity
	trust *identity.Trust
	log   *slog.Logger
	drops *drops
	now   func() time.Time

	opens     *rate.Limiter // of all signals
	strangers *rate.Limiter // signals of strangers that are verified
	logs      *rate.Limiter
	sources   *quota.Rates[peer.ID]
	senders   *quota.Rates[identity.DeviceID]
	// digests holds what was opened, ids what was delivered. Both forget by
	// number only: what opens lets through in the two freshness windows fits, so
	// what has been forgotten is stale.
	digests *lru.Cache[digest, struct{}]
	ids     *lru.Cache[signalKey, struct{}]
	// letterIDs is ids for letters, which live longer and come more slowly.
	letterIDs *lru.Cache[signalKey, struct{}]
	letters   *quota.Rates[bool] // of members: true

	met func(signal) // told of each genuine signal; nil: nobody is

	queue, letterQueue *quota.Queue[signal]
}

// digest names a sealed message. It is computed, not sent: a node that could
// choose it could make us skip the genuine message as a duplicate of its own.
type digest [16]byte

func digestOf(sealed []byte) digest {
	sum := sha256.Sum256(sealed)
	return digest(sum[:16])
}

// signalKey names a signal for ever.
type signalKey struct {
	from identity.DeviceID
	id   [signalIDLen]byte
}

func newInbox(cfg Config, d *drops) *inbox {
	openRate := openShare * cfg.signalRate
	seenLetters := 2*letterRate*(int((MaxLetterLife+2*freshness)/time.Second)+burstSeconds) + 1
	seen := openRate*(2*int(freshness/time.Second)+burstSeconds) + 1
	return &inbox{
		me: cfg.Identity, trust: cfg.Trust, log: cfg.Logger, drops: d, now: time.Now,
		opens:     newLimiter(openRate),
		strangers: newLimiter(cfg.signalRate),
		logs:      rate.NewLimiter(rate.Every(logEvery), 3),
		sources:   newRates[peer.ID](maxSources, 4*cfg.signalRate), // copies and all: a node may carry the strangers' whole rate, and not all that is opened
		senders:   newRates[identity.DeviceID](maxSenders, cfg.senderRate),
		digests:   quota.NewLRU[digest, struct{}](seen),
		ids:       quota.NewLRU[signalKey, struct{}](seen),
		letterIDs: quota.NewLRU[signalKey, struct{}](seenLetters),
		letters:   newRates[bool](2, letterRate),
		queue:     quota.NewQueue[signal](cfg.queueLen, cfg.queueLen), letterQueue: quota.NewQueue[signal](letterQueue, letterQueue),
	}
}

func newLimiter(perSecond int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), burstSeconds*perSecond)
}

// newRates are such limiters for each key.
func newRates[K comparable](keys, perSecond int) *quota.Rates[K] {
	return quota.NewRates[K](keys, rate.Limit(perSecond), burstSeconds*perSecond)
}

// take decides about one sealed message that came from a node.
func (b *inbox) take(source peer.ID, sealed []byte) {
	if c, err := b.sift(source, sealed); err != nil {
		b.drops.add(c)
		if c != dropDuplicate && b.logs.AllowN(b.now(), 1) {
			b.log.Warn("dht: signal dropped", "cause", c.String(), "err", err, "node", source.String())
		}
	}
}

// Errors of sift that need no detail.
var (
	errOversize  = errors.New("longer than any such message")
	errRate      = errors.New("too many")
	errDuplicate = errors.New("came before")
	errOtherTo   = errors.New("made for another device and sealed again for this one")
	errQueue     = errors.New("nobody received for too long")
	errClaim     = errors.New("its certificates are not in the order of a member's")
)

// sift is take with the reason for a drop.
func (b *inbox) sift(source peer.ID, sealed []byte) (cause, error) {
	now := b.now()
	if len(sealed) > maxSealedLen {
		return dropOversize, errOversize
	}
	if !b.sources.Allow(source, now) {
		return dropSourceRate, errRate
	}
	sum := digestOf(sealed)
	if b.digests.Contains(sum) {
		return dropDuplicate, errDuplicate
	}
	if !b.opens.AllowN(now, 1) {
		return dropRate, errRate
	}
	if had, _ := b.digests.ContainsOrAdd(sum, struct{}{}); had {
		return dropDuplicate, errDuplicate
	}
	plain, err := openSignal(b.me, sealed)
	if err != nil {
		return dropSealed, err
	}
	s, err := parseSignal(plain)
	if err != nil {
		return dropMalformed, err
	}
	c, err := b.believe(s, now)
	if s.life > 0 && (c == dropQueue || c == dropRate || c == dropSenderRate) {
		b.digests.Remove(sum)
	}
	return c, err
}

// believe checks what was opened, proves its sender and queues it.
func (b *inbox) believe(s signal, now time.Time) (cause, error) {
	if s.to != b.me.DeviceID() {
		return dropRedirected, errOtherTo
	}
	if err := s.checkFresh(now); err != nil {
		return dropStale, err
	}
	member := b.trust != nil && b.trust.Member(s.claimed())
	if !member && !b.strangers.AllowN(now, 1) {
		return dropRate, errRate
	}
	if err := s.verify(now); err != nil {
		return dropForged, err
	}
	if member && !b.trust.Member(s.from) {
		return dropForged, errClaim
	}
	if !b.senders.Allow(s.from.Device, now) {
		return dropSenderRate, errRate
	}
	// Strangers are met with silence. Who is banned goes on to whoever answers
	// signals and checks, too (ice, webrtc), to be told so at once: it knows that
	// this device is here, and would otherwise repeat its offer and wait.
	if err := b.trust.Check(s.from); err != nil && (s.life > 0 || !errors.Is(err, identity.ErrBanned)) {
		return dropUntrusted, err
	}
	ids, queue := b.ids, b.queue
	if s.life > 0 {
		ids, queue = b.letterIDs, b.letterQueue
	}
	key := signalKey{s.from.Device, s.id}
	switch {
	case ids.Contains(key):
		return dropDuplicate, errDuplicate
	case s.life > 0 && !b.letters.Allow(member, now):
		return dropRate, errRate
	}
	if had, _ := ids.ContainsOrAdd(key, struct{}{}); had {
		return dropDuplicate, errDuplicate
	}
	if b.met != nil && s.life == 0 {
		b.met(s)
	}
	put := queue.PutStranger
	if member {
		put = queue.Put
	}
	if !put(s) { // a letter is remembered by nodes, and comes again when the device listens again
		ids.Remove(key)
		return dropQueue, errQueue
	}
	return 0, nil
}
