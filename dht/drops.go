package dht

import "sync/atomic"

// cause is why a signal, or a request to the push service, was dropped.
type cause int

const (
	dropOversize   cause = iota // longer than any signal
	dropSourceRate              // its node, or its putter, sends too many
	dropDuplicate               // came before
	dropRate                    // too many in all
	dropSealed                  // not sealed for this device
	dropMalformed               // opened, but not a signal
	dropRedirected              // made for another device and sealed again
	dropStale                   // too old, or from the future
	dropForged                  // its chain or signature does not verify
	dropUntrusted               // the trust store refused its sender
	dropSenderRate              // its sender sends too many
	dropQueue                   // nobody received for too long
	dropSlow                    // a listening device took nothing for too long
	dropQuota                   // no room to keep it
	dropListener                // a listener refused: no proof, or too many
	causes
)

// String names a cause as Health does.
func (c cause) String() string {
	return [...]string{
		"oversize", "source rate", "duplicate", "rate", "sealed for another", "malformed", "redirected", "stale",
		"forged", "untrusted", "sender rate", "queue full", "slow listener", "quota", "listener refused",
	}[c]
}

// drops counts by cause. The zero value is ready; it may be used concurrently.
type drops [causes]atomic.Uint64

func (d *drops) add(c cause) { d[c].Add(1) }

func (d *drops) byName() map[string]uint64 {
	m := make(map[string]uint64)
	for c := range causes {
		if n := d[c].Load(); n > 0 {
			m[c.String()] = n
		}
	}
	return m
}
