package webrtc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/escape"
	"peerlink/internal/packed"
)

// A data channel is encrypted by DTLS between two certificates made for it
// alone, and whoever carries the signals could put other ones in. So the first
// messages of the stream's channel say who is there. Each side sends, at once,
// a hello and, to the other's hello, a proof and a verdict:
//
//	hello    binary  msgpack [version uint = 1, nonce bin 32, chain [bin, …], …]
//	proof    binary  the device key's signature, purpose "webrtc", of
//	                 role(1) caller(32) callee(32) caller's fingerprint(32)
//	                 callee's fingerprint(32) caller's nonce(32) callee's nonce(32)
//	verdict  text    "ok", or "no: " and a reason of at most 200 bytes, which a line
//	                 feed and its code in decimal end if there is one
//
// The role is its signer's: 1 caller, 2 callee. Caller and callee are device
// ids; a fingerprint is the SHA-256 of a DTLS certificate as its side of the
// finished handshake saw it. Nothing else is sent, and nothing is handed on,
// until the peer's proof was checked and its "ok" has come.
const (
	helloVersion = 1
	nonceLen     = 32
	proofPurpose = "webrtc"
	maxHello     = identity.MaxChainLen*(identity.MaxCertLen+8) + 256
	maxProof     = 72 // an ASN.1 P-256 signature
	verdictOK    = "ok"
	verdictNo    = "no: "
	// refusalTime is how long a peer that was refused has to hear it: two round
	// trips on the worst link we care for (600 ms).
	refusalTime = 1200 * time.Millisecond
)

// fingerprint is the SHA-256 of a DTLS certificate.
type fingerprint [sha256.Size]byte

type role uint8

const (
	caller role = 1
	callee role = 2
)

func (r role) other() role { return caller + callee - r }

// String names the role.
func (r role) String() string {
	if r == caller {
		return "caller"
	}
	return "callee"
}

// party is what one side says and shows.
type party struct {
	device identity.DeviceID
	print  fingerprint
	nonce  [nonceLen]byte
}

// statement is what the side in role r signs.
func statement(r role, from, to party) []byte {
	b := []byte{byte(r)}
	for _, f := range [][]byte{from.device[:], to.device[:], from.print[:], to.print[:], from.nonce[:], to.nonce[:]} {
		b = append(b, f...)
	}
	return b
}

type prover struct {
	me    *identity.Identity
	trust *identity.Trust
	role  role
	peer  identity.DeviceID // that must be there
	own   fingerprint
	far   fingerprint
	admit func(context.Context, identity.Peer) error // of the proven peer; nil takes it
}

// run proves both sides over raw, which hangUp ends. It blocks until the peer
// has said its verdict, or ctx ends.
func (p prover) run(ctx context.Context, raw messages, hangUp func()) (identity.Peer, error) {
	defer context.AfterFunc(ctx, hangUp)()
	found, err := p.exchange(ctx, raw)
	var said *calls.UnprovenRefusal
	var no *RefusedError
	var gone *lostError
	switch {
	case ctx.Err() != nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return identity.Peer{}, fmt.Errorf("the proof of identity was not finished in time: %w: %w", context.Cause(ctx), os.ErrDeadlineExceeded)
		}
		return identity.Peer{}, context.Cause(ctx)
	case errors.As(err, &said), errors.As(err, &no), errors.As(err, &gone): // it knows
		return identity.Peer{}, err
	case err != nil:
		refuse(raw, err, hangUp)
		return identity.Peer{}, err
	}
	return found, nil
}

func (p prover) exchange(ctx context.Context, raw messages) (identity.Peer, error) {
	mine := party{device: p.me.DeviceID(), print: p.own}
	rand.Read(mine.nonce[:])
	hello, err := encodeHello(mine.nonce, p.me.Peer().Chain())
	if err != nil {
		return identity.Peer{}, err
	}
	if err := say(raw, hello, binary); err != nil {
		return identity.Peer{}, err
	}
	found, theirs, err := p.hello(raw)
	if err != nil {
		return identity.Peer{}, err
	}
	sig, err := p.me.Sign(proofPurpose, p.statement(p.role, mine, theirs))
	if err != nil {
		return identity.Peer{}, fmt.Errorf("sign the proof: %w", err)
	}
	if err := say(raw, sig, binary); err != nil {
		return identity.Peer{}, err
	}
	buf := make([]byte, maxProof)
	n, err := readKind(raw, buf, binary)
	if err != nil {
		return identity.Peer{}, fmt.Errorf("read the proof: %w", err)
	}
	if err := found.Verify(proofPurpose, p.statement(p.role.other(), mine, theirs), buf[:n]); err != nil {
		return identity.Peer{}, fmt.Errorf("device %s did not prove itself at this end of the channel "+
			"(somebody may have put other DTLS certificates into the signals): %w", found.Device.Short(), err)
	}
	if p.admit != nil {
		if err := p.admit(ctx, found); err != nil {
			return identity.Peer{}, &unwanted{err}
		}
	}
	return found, verdict(raw, found.Device)
}

// statement is what the side in role r must have signed.
func (p prover) statement(r role, mine, theirs party) []byte {
	if p.role == caller {
		return statement(r, mine, theirs)
	}
	return statement(r, theirs, mine)
}

// hello reads the peer's, and asks whether that device is wanted.
func (p prover) hello(raw messages) (identity.Peer, party, error) {
	buf := make([]byte, maxHello)
	n, err := readKind(raw, buf, binary)
	if err != nil {
		return identity.Peer{}, party{}, fmt.Errorf("read the hello: %w", err)
	}
	nonce, chain, err := decodeHello(buf[:n])
	if err != nil {
		return identity.Peer{}, party{}, err
	}
	found, err := identity.VerifyChain(chain, time.Now())
	switch {
	case err != nil:
		return identity.Peer{}, party{}, err
	case found.Device != p.peer:
		return identity.Peer{}, party{}, fmt.Errorf("device %s is at the other end, want %s", found.Device, p.peer)
	}
	if err := p.trust.Check(found); err != nil {
		return identity.Peer{}, party{}, err
	}
	return found, party{found.Device, p.far, nonce}, nil
}

// verdict tells the peer that it is believed, and hears whether this side is.
func verdict(raw messages, peer identity.DeviceID) error {
	if err := say(raw, []byte(verdictOK), text); err != nil {
		return err
	}
	_, err := readKind(raw, make([]byte, len(verdictNo)+calls.MaxReason), text)
	if no, ok := errors.AsType[*calls.UnprovenRefusal](err); ok {
		return &RefusedError{Peer: peer, Code: no.Code, Reason: no.Reason}
	}
	return err
}

// refuse tells the peer why, and waits until it hangs up, which shows that it
// has heard; but not for long.
func refuse(raw messages, err error, hangUp func()) {
	if say(raw, []byte(verdictNo+refusal(err)), text) != nil {
		return
	}
	defer time.AfterFunc(refusalTime, hangUp).Stop()
	buf := make([]byte, maxMessage)
	for {
		n, isText, err := raw.ReadDataChannel(buf)
		if err != nil || isText && strings.HasPrefix(string(buf[:n]), verdictNo) {
			return
		}
	}
}

// unwanted is a decision against a peer, which is told why.
type unwanted struct{ why error }

// Error is the decision's.
func (e *unwanted) Error() string { return e.why.Error() }

// refusal is what a stranger may know: a reason and, behind a line feed, its code
// if there is one.
func refusal(err error) string {
	reason, code := publicReason(err)
	tail := ""
	if code != 0 {
		tail = fmt.Sprintf("\n%d", code)
	}
	return escape.Cap(strings.ReplaceAll(reason, "\n", " "), calls.MaxReason-len(tail)) + tail
}

// readRefusal takes apart what refusal made.
func readRefusal(said string) error {
	reason, tail, _ := strings.Cut(said, "\n")
	code, err := strconv.ParseUint(tail, 10, 32)
	if err != nil {
		code = 0
	}
	return calls.Said(calls.Code(code), escape.Cap(reason, calls.MaxReason))
}

func publicReason(err error) (string, calls.Code) {
	var no *unwanted
	switch {
	case errors.As(err, &no):
		return no.Error(), calls.CodeOf(no.why)
	case errors.Is(err, identity.ErrNotTrusted):
		return "not trusted", calls.CodeUnwanted
	case errors.Is(err, identity.ErrSignature):
		return "the proof does not fit this channel", calls.CodeNotProven
	case errors.Is(err, identity.ErrChain):
		return "certificate chain refused", 0
	}
	return "another device or another protocol was expected", 0
}

type messageKind bool

const (
	binary messageKind = false
	text   messageKind = true
)

func say(raw messages, b []byte, kind messageKind) error {
	if _, err := raw.WriteDataChannel(b, bool(kind)); err != nil {
		return lost(err)
	}
	return nil
}

// lostError is the end of a channel. It hides pion's io.EOF, which is no clean
// one.
type lostError struct{ cause error }

// Error tells what pion says.
func (e *lostError) Error() string {
	return fmt.Sprintf("connection lost (%v): %v", e.cause, io.ErrUnexpectedEOF)
}

// Unwrap returns io.ErrUnexpectedEOF.
func (e *lostError) Unwrap() error { return io.ErrUnexpectedEOF }

func lost(err error) error { return &lostError{err} }

// readKind reads one message of the expected kind. A refusal is an error
// wherever it comes; anything else unexpected is one, too.
func readKind(raw messages, buf []byte, want messageKind) (int, error) {
	whole := buf
	if least := len(verdictNo) + calls.MaxReason; len(buf) < least {
		whole = make([]byte, least)
	}
	n, isText, err := raw.ReadDataChannel(whole)
	switch {
	case errors.Is(err, io.ErrShortBuffer):
		return 0, fmt.Errorf("a message of more than %d bytes", len(whole))
	case err != nil:
		return 0, lost(err)
	case isText:
		said := string(whole[:n])
		if reason, no := strings.CutPrefix(said, verdictNo); no {
			return 0, readRefusal(reason)
		}
		if want != text || said != verdictOK {
			return 0, fmt.Errorf("unexpected text message %.40q", said)
		}
		return n, nil
	case want == text:
		return 0, errors.New("bytes before the end of the proof")
	case n > len(buf):
		return 0, fmt.Errorf("a message of %d bytes, at most %d are taken", n, len(buf))
	}
	return copy(buf, whole[:n]), nil
}

func encodeHello(nonce [nonceLen]byte, chain [][]byte) ([]byte, error) {
	return msgpack.Marshal([]any{uint8(helloVersion), nonce[:], chain})
}

// decodeHello takes a stranger's hello apart. Elements that it does not know
// are passed over.
func decodeHello(b []byte) (nonce [nonceLen]byte, chain [][]byte, err error) {
	f := packed.NewFields(b, 3)
	if version := f.Uint(255); version != helloVersion {
		f.Fail(fmt.Errorf("version %d, want %d: the two programs are too far apart in age", version, helloVersion))
	}
	f.Exactly(nonce[:])
	if chain = f.Blobs(identity.MaxChainLen, identity.MaxCertLen); len(chain) < 2 {
		f.Fail(fmt.Errorf("%d certificates, want a device's and its account's", len(chain)))
	}
	if err := f.End(); err != nil {
		return nonce, nil, fmt.Errorf("hello: %w", err)
	}
	return nonce, chain, nil
}
