package turnserver

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"peerlink/internal/quota"
)

const (
	// maxAllocations is how many members and strangers have together; half of them
	// are the members'. Without members, strangers have all.
	maxAllocations = 512
	// maxOfMember and maxOfStranger bound the allocations of one device. A call
	// needs one, two while UDP and TCP race, and one more when a relay is renewed.
	maxOfMember   = 8
	maxOfStranger = 4
	// maxOfHost bounds the allocations of all strangers at one IPv4 address or IPv6
	// /64, and maxOfNet the allocations of an IPv4 /24 or IPv6 /48: identities cost nothing,
	// networks do. An office behind one address has 32 relayed devices at once.
	maxOfHost = 32
	maxOfNet  = 64
)

// holder is a device that uses the relay, and from where.
type holder struct {
	device    string // 64 hex digits
	member    bool
	host, net netip.Prefix // of maxOfHost and of maxOfNet
}

func newHolder(device string, member bool, from netip.Addr) holder {
	return holder{device, member, quota.NetworkOf(from, 32, 64), quota.NetworkOf(from, 24, 48)}
}

// source is what a rate holds for: a member, or all strangers at one host.
type source struct {
	device string
	host   netip.Prefix
}

func (h holder) source() source {
	if h.member {
		return source{device: h.device}
	}
	return source{host: h.host}
}

// places counts the allocations of devices and, for strangers, of their networks.
type places struct {
	devices     *quota.Quota[string]
	hosts, nets *quota.Quota[netip.Prefix]
}

func newPlaces(most int, members bool) *places {
	var reserved int
	if members {
		reserved = most / 2
	}
	return &places{
		devices: quota.NewPools[string](quota.Limits{Each: maxOfMember, All: reserved}, quota.Limits{Each: maxOfStranger, All: most - reserved}),
		hosts:   quota.New[netip.Prefix](maxOfHost, quota.NoLimit),
		nets:    quota.New[netip.Prefix](maxOfNet, quota.NoLimit),
	}
}

// take gives a holder one more place, for release to take back. The error is
// quota.ErrKey where the device or its network has as many as it may have, and
// quota.ErrAll where the relay is full.
func (p *places) take(h holder) error {
	if h.member {
		return p.devices.Take(h.device)
	}
	if err := p.hosts.Take(h.host); err != nil {
		return err
	}
	if err := p.nets.Take(h.net); err != nil {
		p.hosts.Release(h.host)
		return err
	}
	if err := p.devices.TakeStranger(h.device); err != nil {
		p.hosts.Release(h.host)
		p.nets.Release(h.net)
		return err
	}
	return nil
}

func (p *places) release(h holder) {
	p.devices.Release(h.device)
	if !h.member {
		p.hosts.Release(h.host)
		p.nets.Release(h.net)
	}
}

// room returns nil if take would give a place now.
func (p *places) room(h holder) error {
	err := p.take(h)
	if err == nil {
		p.release(h)
	}
	return err
}

// The rates of a Config that leaves them out, in bytes a second. One source may
// fill a line of 64 Mbit/s, all together half of one of 1 Gbit/s.
const (
	defaultRate    = 8 << 20
	defaultRateAll = 64 << 20
	maxPacket      = 1600 // pion's buffer: no packet is longer
)

// meter counts the bytes that are relayed, in either direction. A packet above
// the rate is lost, as packets are on a full line: the devices' congestion
// control then slows down.
type meter struct {
	each           *quota.Rates[source]
	strangers, all *rate.Limiter
}

// newMeter makes a meter of so many bytes a second for one source and in all; less
// than zero is no limit. With members, strangers have half of all.
func newMeter(each, all int64, members bool) *meter {
	share := all
	if members && all > 0 {
		share = all / 2
	}
	limit, burst := limitOf(each)
	// More sources than allocations: none that has one is forgotten.
	return &meter{quota.NewRates[source](2*maxAllocations, limit, burst), rate.NewLimiter(limitOf(share)), rate.NewLimiter(limitOf(all))}
}

// limitOf returns a rate and the burst that goes with it: the bytes of one second,
// and one packet at least.
func limitOf(bytes int64) (rate.Limit, int) {
	if bytes < 0 {
		return rate.Inf, 0
	}
	return rate.Limit(bytes), int(max(bytes, maxPacket))
}

// allow tells whether n bytes more may go.
func (m *meter) allow(h holder, n int, now time.Time) bool {
	return m.each.AllowN(h.source(), now, n) &&
		(h.member || m.strangers.AllowN(now, n)) &&
		m.all.AllowN(now, n)
}
