package dht

import (
	"fmt"
	"strings"
	"time"

	"peerlink/identity"
)

// A record is a signed statement: see docs/protocol.md, "Records".
//
//	[version, chain [bytes…], sealing key bytes, sequence, published ms, expires ms]

// Bounds of a record. The record of a device of ours has about 2.3 KiB.
const (
	maxRecordLen     = 8 << 10
	maxKeyLen        = len(recordKeyPrefix) + 2*idLen
	maxSealingKey    = 2 << 10
	maxRecordLife    = 24 * time.Hour
	maxRecordSkew    = 5 * time.Minute // how far ahead a publisher's clock may be
	recordFields     = 6
	recordPurpose    = "record"
	recordNamespace  = "peerlink"
	recordKeyPrefix  = "/" + recordNamespace + "/"
	maxUnixMilli     = 1 << 48 // the year 10889; keeps arithmetic on times exact
	maxSequence      = 1 << 62
	minRecordRefresh = 15 * time.Second
)

// Record is what a device says of itself in the DHT, verified: the chain, the
// lifetime and the signature fit the device id that was asked for.
type Record struct {
	// Peer is the device.
	Peer identity.Peer
	// SealingKey is the public HPKE key that identity.Seal encrypts to.
	SealingKey []byte
	// Seq numbers the device's records; the highest is the newest.
	Seq uint64
	// Published and Expires bound the record's life, by the device's clock.
	Published, Expires time.Time
}

func recordKey(id identity.DeviceID) string { return recordKeyPrefix + id.String() }

// parseRecordKey is the inverse of recordKey. One id has one key: upper-case
// digits are refused.
func parseRecordKey(key string) (identity.DeviceID, error) {
	hex, ok := strings.CutPrefix(key, recordKeyPrefix)
	if !ok {
		return identity.DeviceID{}, fmt.Errorf("key %.80q is outside %s", key, recordKeyPrefix)
	}
	id, err := identity.ParseDeviceID(hex)
	if err == nil && id.String() != hex {
		err = fmt.Errorf("key %.80q is not in lower case", key)
	}
	return id, err
}

func encodeRecord(id *identity.Identity, seq uint64, published, expires time.Time) ([]byte, error) {
	b, err := sign(id, recordPurpose, wireVersion, id.Peer().Chain(), id.SealingKey(), seq,
		uint64(published.UnixMilli()), uint64(expires.UnixMilli()))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRecordLen {
		return nil, fmt.Errorf("the record has %d bytes, at most %d are taken", len(b), maxRecordLen)
	}
	return b, nil
}

// decodeRecord reads and verifies what claims to be the record of device id.
// Everything cheap is checked before the first signature.
func decodeRecord(b []byte, id identity.DeviceID, now time.Time) (Record, error) {
	rec, chain, s, err := parseRecord(b)
	if err != nil {
		return Record{}, err
	}
	if err := checkLife("record", rec.Published, rec.Expires, maxRecordLife, now); err != nil {
		return Record{}, err
	}
	if rec.Peer, err = identity.VerifyChain(chain, now); err != nil {
		return Record{}, err
	}
	if rec.Peer.Device != id {
		return Record{}, fmt.Errorf("the record is of device %s, not of %s", rec.Peer.Device, id)
	}
	if err := rec.Peer.Verify(recordPurpose, s.statement, s.signature); err != nil {
		return Record{}, err
	}
	return rec, nil
}

// parseRecord takes a record apart without believing it.
func parseRecord(b []byte) (rec Record, chain [][]byte, s signed, err error) {
	s, f, err := readSigned("record", b, maxRecordLen, recordFields)
	if err != nil {
		return rec, nil, s, err
	}
	chain = readChain(f)
	rec.SealingKey = f.Bytes(maxSealingKey)
	rec.Seq = f.Uint(maxSequence)
	rec.Published, rec.Expires = readTime(f), readTime(f)
	return rec, chain, s, f.End()
}

// checkLife refuses what is over, not yet begun or meant to stay for longer than
// most.
func checkLife(what string, published, expires time.Time, most time.Duration, now time.Time) error {
	switch life := expires.Sub(published); {
	case life <= 0 || life > most:
		return fmt.Errorf("the %s's life of %v is outside 0 to %v", what, life, most)
	case now.After(expires):
		return fmt.Errorf("the %s expired %v ago", what, now.Sub(expires).Round(time.Second))
	case published.Sub(now) > maxRecordSkew:
		return fmt.Errorf("the %s is from %v in the future: one of the two clocks is wrong", what, published.Sub(now).Round(time.Second))
	}
	return nil
}
