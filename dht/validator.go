package dht

import (
	"fmt"
	"time"

	record "github.com/libp2p/go-libp2p-record"
)

// validator is what every node asks before it stores a value of one kind, or
// believes one.
type validator struct {
	what  string // for errors
	check func(key string, value []byte, now time.Time) error
	// rank reads a value that check took, without its signature. The highest wins,
	// among equals the first one.
	rank func(value []byte) (int64, error)
}

// Validate implements the DHT's record validator.
func (v validator) Validate(key string, value []byte) error {
	if err := v.check(key, value, time.Now()); err != nil {
		return fmt.Errorf("dht: refuse %s: %w", v.what, err)
	}
	return nil
}

// Select implements the DHT's record validator.
func (v validator) Select(_ string, values [][]byte) (int, error) {
	best, highest := -1, int64(0)
	for i, value := range values {
		if rank, err := v.rank(value); err == nil && (best < 0 || rank > highest) {
			best, highest = i, rank
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("dht: none of the values is a valid %s", v.what)
	}
	return best, nil
}

var (
	// recordValidator has the highest sequence number win.
	recordValidator = validator{"record", func(key string, value []byte, now time.Time) error {
		id, err := parseRecordKey(key)
		if err == nil {
			_, err = decodeRecord(value, id, now)
		}
		return err
	}, func(value []byte) (int64, error) {
		rec, _, _, err := parseRecord(value)
		return int64(rec.Seq), err
	}}
	// inviteValidator has the first to publish keep a number.
	inviteValidator = validator{"invite", func(key string, value []byte, now time.Time) error {
		_, err := decodeInvite(value, key, now)
		return err
	}, func(value []byte) (int64, error) {
		inv, _, _, err := parseInvite(value)
		return -inv.published.UnixMilli(), err
	}}
)

func validators() record.NamespacedValidator {
	return record.NamespacedValidator{recordNamespace: recordValidator, inviteNamespace: inviteValidator}
}
