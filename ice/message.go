package ice

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/calls"
	"peerlink/internal/escape"
	"peerlink/internal/packed"
)

// The signals of this package are msgpack maps with string keys, at most 8 KiB
// long. The signaller encrypts and signs them; it does not look inside.
//
//	"k"    uint    1 offer, 2 answer, 3 refuse, 4 more candidates; a receiver
//	               ignores other kinds
//	"i"    bin 16  request id, random, chosen by the caller
//	"r"    str     refuse: the reason, at most 200 bytes
//	"e"    uint    refuse: its code, if there is one
//	"tcp"  map     the TCP engine, where its sender has one
//	  "s"  bin 32  offer: key of the checks, random, for this request alone
//	  "c"  array   candidates
//	"udp"  map     the UDP engine, where its sender has one
//	  "u"  str     ICE user name fragment, 4–32 ice-chars (RFC 8839)
//	  "p"  str     ICE password, 22–64 ice-chars
//	  "c"  array   candidates
//
// Kind 4 has the candidates that its sender found after its offer or answer:
// "c" alone within "tcp" and "udp".
//
// A candidate is [type uint, address str, port uint, …]: type 0 host, 1 server
// reflexive, 2 mapped, 3 relay, 4 direct (of TCP, from the callee: TLS begins at
// once, without a check); an IP address literal; a port from 1 up. An
// engine's list is cut after 16. Candidates of another type or with an address that
// must not be dialled are passed over; keys and elements that a receiver does
// not know are too. A key given twice, a wrong type or a missing "k" or "i"
// makes the whole message invalid.
const (
	maxListed   = 512 // candidates that are read over at all; 8 KiB hold no more
	maxAddress  = 64  // an IPv6 address with its zone
	minUfrag    = 4
	maxUfrag    = 32
	minPassword = 22
	maxPassword = 64
)

// firstKind is how an offer is numbered.
const firstKind = 1

// requestID names one negotiation.
type requestID = calls.ID

// checkKey is the secret that both sides of a TCP check must know.
type checkKey [32]byte

// message is an offer, an answer or a refusal.
type message struct {
	kind   calls.Kind
	id     requestID
	code   calls.Code // of a refusal
	reason string
	tcp    *tcpPart
	udp    *udpPart
}

// Head returns what all calls have.
func (m *message) Head() calls.Head {
	return calls.Head{Kind: m.kind, ID: m.id, Code: m.code, Reason: m.reason}
}

type tcpPart struct {
	key        checkKey // of offers; zero in answers
	candidates []candidate
}

type udpPart struct {
	ufrag, password string
	candidates      []candidate
}

func (m *message) tcpCandidates() []candidate {
	if m.tcp == nil {
		return nil
	}
	return m.tcp.candidates
}

func (m *message) udpCandidates() []candidate {
	if m.udp == nil {
		return nil
	}
	return m.udp.candidates
}

// candidates is the number of them.
func (m *message) candidates() int { return len(m.tcpCandidates()) + len(m.udpCandidates()) }

type wireMessage struct {
	Kind   uint8    `msgpack:"k"`
	ID     []byte   `msgpack:"i"`
	Reason string   `msgpack:"r,omitempty"`
	Code   uint32   `msgpack:"e,omitempty"`
	TCP    *wireTCP `msgpack:"tcp,omitempty"`
	UDP    *wireUDP `msgpack:"udp,omitempty"`
}

type wireTCP struct {
	Key        []byte  `msgpack:"s,omitempty"`
	Candidates [][]any `msgpack:"c"`
}

type wireUDP struct {
	Ufrag      string  `msgpack:"u,omitempty"`
	Password   string  `msgpack:"p,omitempty"`
	Candidates [][]any `msgpack:"c"`
}

// encode writes the message. It cannot grow past calls.MaxSignal: 32 candidates of
// at most 64 bytes and the fields above take less than 3 KiB.
func (m *message) encode() ([]byte, error) {
	w := wireMessage{Kind: firstKind + uint8(m.kind), ID: m.id[:], Reason: escape.Cap(m.reason, calls.MaxReason), Code: uint32(m.code)}
	if m.tcp != nil {
		w.TCP = &wireTCP{Candidates: encodeCandidates(m.tcp.candidates)}
		if m.kind == calls.Offer {
			w.TCP.Key = m.tcp.key[:]
		}
	}
	if m.udp != nil {
		w.UDP = &wireUDP{m.udp.ufrag, m.udp.password, encodeCandidates(m.udp.candidates)}
	}
	var b strings.Builder
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := enc.Encode(w); err != nil {
		return nil, fmt.Errorf("ice: encode %s: %w", m.kind, err)
	}
	return []byte(b.String()), nil
}

func encodeCandidates(cs []candidate) [][]any {
	out := make([][]any, 0, len(cs))
	for _, c := range cs[:min(len(cs), candidatesPerEngine)] {
		out = append(out, []any{uint8(c.typ), c.addr.Addr().String(), c.addr.Port()})
	}
	return out
}

// decode reads what a peer sent. It keeps loopback candidates only where
// loopback says so.
func decode(b []byte, loopback bool) (*message, error) {
	m := &message{}
	h, err := calls.ReadHead(b, firstKind, func(r *packed.Reader, key string) (err error) {
		d := decoder{r, loopback}
		switch key {
		case "tcp":
			m.tcp, err = d.tcp()
		case "udp":
			m.udp, err = d.udp()
		default:
			err = r.Skip()
		}
		return err
	})
	m.kind, m.id, m.reason, m.code = h.Kind, h.ID, h.Reason, h.Code
	switch {
	case err != nil:
		return nil, fmt.Errorf("ice: %w", err)
	case m.kind == calls.Offer && m.tcp != nil && m.tcp.key == checkKey{}:
		return nil, errors.New("ice: offer of TCP without a check key")
	case m.kind != calls.More && m.udp != nil && m.udp.ufrag == "":
		return nil, fmt.Errorf("ice: %s with UDP, but without ICE credentials", m.kind)
	}
	return m, nil
}

type decoder struct {
	r        *packed.Reader
	loopback bool
}

func (d *decoder) tcp() (*tcpPart, error) {
	p := &tcpPart{}
	_, err := d.r.Keyed(calls.MaxKey, func(key string) (err error) {
		switch key {
		case "s":
			err = d.r.Exactly(p.key[:])
		case "c":
			p.candidates, err = d.candidates()
		default:
			err = d.r.Skip()
		}
		return err
	})
	return p, err
}

func (d *decoder) udp() (*udpPart, error) {
	p := &udpPart{}
	_, err := d.r.Keyed(calls.MaxKey, func(key string) (err error) {
		switch key {
		case "u":
			p.ufrag, err = d.r.String(maxUfrag)
		case "p":
			p.password, err = d.r.String(maxPassword)
		case "c":
			p.candidates, err = d.candidates()
		default:
			err = d.r.Skip()
		}
		return err
	})
	none := p.ufrag == "" && p.password == ""
	if err == nil && !none && (!iceChars(p.ufrag, minUfrag) || !iceChars(p.password, minPassword)) {
		err = errors.New("malformed ICE credentials")
	}
	return p, err
}

// iceChars reports whether s is of at least least characters of the ice-char
// production of RFC 8839. A colon in a fragment would break the user name.
func iceChars(s string, least int) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '/':
		default:
			return false
		}
	}
	return len(s) >= least
}

func (d *decoder) candidates() ([]candidate, error) {
	n, err := d.r.Array(maxListed)
	if err != nil {
		return nil, err
	}
	var out []candidate
	for range n {
		if len(out) == candidatesPerEngine {
			if err := d.r.Skip(); err != nil {
				return nil, err
			}
			continue
		}
		c, ok, err := d.candidate()
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, c)
		}
	}
	return out, nil
}

// candidate reads one; ok tells whether it may be used.
func (d *decoder) candidate() (c candidate, ok bool, err error) {
	n, err := d.r.Array(packed.MaxCount)
	if err != nil {
		return c, false, err
	}
	if n < 3 {
		return c, false, fmt.Errorf("candidate of %d elements, want 3", n)
	}
	typ, err := d.r.Uint(255)
	if err != nil {
		return c, false, err
	}
	text, err := d.r.String(maxAddress)
	if err != nil {
		return c, false, err
	}
	port, err := d.r.Uint(65535)
	if err != nil {
		return c, false, err
	}
	for range n - 3 {
		if err := d.r.Skip(); err != nil {
			return c, false, err
		}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return c, false, fmt.Errorf("candidate %.80q is not an address literal", text)
	}
	c = candidate{candidateType(typ), netip.AddrPortFrom(addr.Unmap(), uint16(port))}
	return c, checkCandidate(c, d.loopback) == nil, nil
}
