package ice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun/v2"
)

// Asking a STUN server over UDP: the first repetition comes after askPause,
// doubled each time. RFC 8489 begins with 500 ms, for links that are slower to
// answer than the ones worth punching through; five requests last 3 s.
const (
	askPause = 100 * time.Millisecond
	askTimes = 5
	// maxSTUNAnswer bounds a response over TCP: an address takes 60 bytes.
	maxSTUNAnswer = 1024
)

// ask asks a STUN server, over the socket that carries everything else, from
// which address it is asked.
func (m *stunMux) ask(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error) {
	req, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	q := question{server, make(chan netip.AddrPort, 1)}
	m.mu.Lock()
	m.asked[req.TransactionID] = q
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.asked, req.TransactionID)
		m.mu.Unlock()
	}()
	pause := askPause
	for range askTimes {
		if _, err := m.write(req.Raw, net.UDPAddrFromAddrPort(server)); err != nil {
			return netip.AddrPort{}, err
		}
		select {
		case a := <-q.answerc:
			if !a.IsValid() {
				return a, errors.New("its answer has no address")
			}
			return a, nil
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return netip.AddrPort{}, context.Cause(ctx)
		}
	}
	return netip.AddrPort{}, errors.New("no answer")
}

// askStream asks a STUN server over TCP (RFC 8489, section 6.2.2). The caller
// bounds it by a deadline.
func askStream(conn net.Conn) (netip.AddrPort, error) {
	req, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := conn.Write(req.Raw); err != nil {
		return netip.AddrPort{}, err
	}
	b := make([]byte, stunHeader, maxSTUNAnswer)
	if _, err := io.ReadFull(conn, b); err != nil {
		return netip.AddrPort{}, err
	}
	n := int(b[2])<<8 | int(b[3])
	if stunHeader+n > maxSTUNAnswer {
		return netip.AddrPort{}, fmt.Errorf("an answer of %d bytes", n)
	}
	b = b[:stunHeader+n]
	if _, err := io.ReadFull(conn, b[stunHeader:]); err != nil {
		return netip.AddrPort{}, err
	}
	class, tx, ok := parseSTUN(b)
	if !ok || class != stunSuccess || tx != req.TransactionID {
		return netip.AddrPort{}, errors.New("not the answer to a binding request")
	}
	a := mappedAddress(b)
	if !a.IsValid() {
		return a, errors.New("its answer has no address")
	}
	return a, nil
}

// mappedAddress returns the address in a binding response, or the zero value.
func mappedAddress(b []byte) netip.AddrPort {
	m := &stun.Message{Raw: b}
	var x stun.XORMappedAddress
	if m.Decode() != nil || x.GetFrom(m) != nil || x.Port <= 0 || x.Port > 65535 {
		return netip.AddrPort{}
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(x.Port))
}
