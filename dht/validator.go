package dht

import (
	"bytes"
	"fmt"
	"time"

	record "github.com/libp2p/go-libp2p-record"
)

// validator is what every node asks before it stores a value of one kind, or
// believes one.
type validator struct {
	what  string // for errors
	check func(key string, value []byte, now time.Time) error
	// wins reports whether a value takes the place of one that is held, which may be
	// none. Both were checked, so signatures are not read again.
	wins func(value, held []byte) bool
}

// Validate implements the DHT's record validator.
func (v validator) Validate(key string, value []byte) error {
	if err := v.check(key, value, time.Now()); err != nil {
		return fmt.Errorf("dht: refuse %s: %w", v.what, err)
	}
	return nil
}

// Select implements the DHT's record validator. The library's value store
// (records/value_store.go, Put) asks it with the new value first and the held one
// last, so the last of equal values is the one that stays. A value that is held
// already wins against itself: to bring it again is no error.
func (v validator) Select(_ string, values [][]byte) (int, error) {
	best, held := -1, []byte(nil)
	for i := len(values) - 1; i >= 0; i-- {
		if v.wins(values[i], held) {
			best, held = i, values[i]
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("dht: none of the values is a valid %s", v.what)
	}
	return best, nil
}

var (
	// recordValidator has the highest sequence number win, which the device itself
	// has signed.
	recordValidator = validator{"record", func(key string, value []byte, now time.Time) error {
		id, err := parseRecordKey(key)
		if err == nil {
			_, err = decodeRecord(value, id, now)
		}
		return err
	}, func(value, held []byte) bool {
		rec, _, _, err := parseRecord(value)
		old, _, _, none := parseRecord(held)
		return err == nil && (none != nil || rec.Seq > old.Seq || bytes.Equal(value, held))
	}}
	// inviteValidator has an invite that is there stay: when another one says that it
	// was published is only that one's word. Its own device may prolong it.
	inviteValidator = validator{"invite", func(key string, value []byte, now time.Time) error {
		_, err := decodeInvite(value, key, now)
		return err
	}, func(value, held []byte) bool {
		inv, spki, _, err := parseInvite(value)
		old, owner, _, none := parseInvite(held)
		return err == nil && (none != nil || bytes.Equal(spki, owner) && inv.expires.After(old.expires) || bytes.Equal(value, held))
	}}
)

func validators() record.NamespacedValidator {
	return record.NamespacedValidator{recordNamespace: recordValidator, inviteNamespace: inviteValidator}
}
