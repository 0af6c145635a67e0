package webrtc

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/calls"
	"peerlink/internal/escape"
	"peerlink/internal/packed"
)

// The signals of this package are msgpack maps with string keys, at most 8 KiB
// long. The signaller encrypts and signs them.
//
//	"k"  uint    16 offer, 17 answer, 18 refuse, 19 candidates; a receiver
//	             ignores other kinds (1 to 15 are other carriers')
//	"i"  bin 16  call id, random, chosen by the caller
//	"s"  str     offer, answer: a session description (RFC 8866, 8841) with one
//	             data channel section, at most 4 KiB
//	"c"  array   of str: candidates (RFC 8839 candidate-attribute, without
//	             "a="), at most 16, each at most 256 bytes
//	"r"  str     refuse: the reason, at most 200 bytes
//	"e"  uint    refuse: its code, if there is one
//
// Candidates stand in "c"; the ones in a session description count as well. A
// candidate that is no UDP or TCP one with an IP address that may be dialled is
// passed over. Keys that a receiver does not know are, too; a key given twice,
// a wrong type or a missing "k" or "i" makes the whole message invalid.
const (
	maxDescription   = 4 << 10
	maxCandidates    = 16
	maxCandidateLen  = 256
	minRemoteMessage = 1 << 10
)

// firstKind is how an offer is numbered.
const firstKind = 16

type callID = calls.ID

type message struct {
	kind       calls.Kind
	id         callID
	sdp        string // without candidates, after decode
	largest    int    // after decode: the longest message its sender takes
	candidates []string
	code       calls.Code // of a refusal
	reason     string
}

// Head returns what all calls have.
func (m *message) Head() calls.Head {
	return calls.Head{Kind: m.kind, ID: m.id, Code: m.code, Reason: m.reason}
}

type wireMessage struct {
	Kind       uint8    `msgpack:"k"`
	ID         []byte   `msgpack:"i"`
	SDP        string   `msgpack:"s,omitempty"`
	Candidates []string `msgpack:"c,omitempty"`
	Reason     string   `msgpack:"r,omitempty"`
	Code       uint32   `msgpack:"e,omitempty"`
}

func (m *message) encode() ([]byte, error) {
	w := wireMessage{firstKind + uint8(m.kind), m.id[:], m.sdp, m.candidates[:min(len(m.candidates), maxCandidates)], escape.Cap(m.reason, calls.MaxReason), uint32(m.code)}
	b, err := msgpack.Marshal(w)
	if err == nil && len(b) > calls.MaxSignal {
		err = fmt.Errorf("%d bytes, at most %d can be sent", len(b), calls.MaxSignal)
	}
	if err != nil {
		return nil, fmt.Errorf("webrtc: encode %s: %w", m.kind, err)
	}
	return b, nil
}

// reachableOn says which candidates may be dialled.
type reachableOn bool

const (
	networks reachableOn = false
	loopback reachableOn = true // for tests: and loopback
)

func decode(b []byte, on reachableOn) (*message, error) {
	m := &message{}
	h, err := calls.ReadHead(b, firstKind, m.field)
	if err != nil {
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	m.kind, m.id, m.reason, m.code = h.Kind, h.ID, h.Reason, h.Code
	if m.kind == calls.Offer || m.kind == calls.Answer {
		if err := m.describe(); err != nil {
			return nil, fmt.Errorf("webrtc: %s: %w", m.kind, err)
		}
	}
	m.candidates = slices.DeleteFunc(m.candidates, func(c string) bool { return !mayDial(c, on) })
	m.candidates = m.candidates[:min(len(m.candidates), maxCandidates)]
	return m, nil
}

func (m *message) field(r *packed.Reader, key string) (err error) {
	switch key {
	case "s":
		m.sdp, err = r.String(maxDescription)
	case "c":
		var n int
		n, err = r.Array(maxCandidates)
		for i := 0; err == nil && i < n; i++ {
			var c string
			if c, err = r.String(maxCandidateLen); err == nil {
				m.candidates = append(m.candidates, c)
			}
		}
	default:
		err = r.Skip()
	}
	return err
}

// describe checks a session description and takes the candidates out, so that
// none gets past mayDial.
func (m *message) describe() error {
	var b strings.Builder
	var sections, prints int
	m.largest = maxMessage
	for line := range strings.Lines(m.sdp) {
		line = strings.TrimRight(line, "\r\n")
		if i := strings.IndexFunc(line, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
			return fmt.Errorf("description with a character that is not printable ASCII in %.40q", line)
		}
		switch attr, value, _ := strings.Cut(line, ":"); {
		case attr == "a=candidate":
			if len(value) <= maxCandidateLen {
				m.candidates = append(m.candidates, "candidate:"+value)
			}
			continue
		case attr == "a=end-of-candidates":
			continue
		case attr == "a=max-message-size":
			size, err := strconv.ParseUint(value, 10, 32)
			if err != nil || size > 0 && size < minRemoteMessage {
				return fmt.Errorf("%q: want 0 or %d and more", line, minRemoteMessage)
			}
			if size > 0 {
				m.largest = min(maxMessage, int(size))
			}
		case attr == "a=fingerprint":
			if !strings.HasPrefix(strings.ToLower(value), "sha-256 ") {
				return fmt.Errorf("fingerprint %.40q is no SHA-256", value)
			}
			prints++
		case strings.HasPrefix(line, "m="):
			if !strings.HasPrefix(line, "m=application ") || !strings.HasSuffix(line, " webrtc-datachannel") {
				return fmt.Errorf("section %.60q is no data channel", line)
			}
			sections++
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	if sections != 1 || prints == 0 || prints > 2 {
		return fmt.Errorf("description with %d data channel sections and %d fingerprints, want one of each", sections, prints)
	}
	m.sdp = b.String()
	return nil
}

// mayDial reads candidate:foundation component transport priority address port typ type.
func mayDial(c string, on reachableOn) bool {
	f := strings.Fields(c)
	if len(f) < 8 || !strings.HasPrefix(f[0], "candidate:") || f[6] != "typ" {
		return false
	}
	if t := strings.ToLower(f[2]); t != "udp" && t != "tcp" {
		return false
	}
	if strings.IndexFunc(c, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return false
	}
	addr, err := netip.ParseAddr(f[4])
	if err != nil || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	port, err := strconv.ParseUint(f[5], 10, 16)
	switch {
	case err != nil || port == 0,
		addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case addr.IsLoopback():
		return on == loopback
	}
	return true
}
