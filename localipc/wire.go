package localipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"peerlink/identity"
	"peerlink/internal/escape"
	"peerlink/internal/packed"
)

// What is said before the stream begins. A message is
//
//	kind:uint8 | length:uint16 | body[length], body a msgpack array
//
//	1 hello    caller: ["peerlink/local", version, 0, service, callee bin(32), nonce bin(32)]
//	           callee: ["peerlink/local", version, 0, device bin(32), nonce bin(32)]
//	2 proof    [chain, process id, user id, signature]
//	3 ready    []
//	4 refused  [reason, at most 200 bytes, code]   the code only if there is one
//
// in this order: hello, hello, caller's proof, callee's proof, ready. The
// hello's first two elements and its framing stay the same in all versions. Its
// third one is the protection of what follows: there is none but the kernel's.
const (
	kindHello   = 1
	kindProof   = 2
	kindReady   = 3
	kindRefused = 4

	wireMagic   = "peerlink/local"
	wireVersion = 1
	idLen       = len(identity.DeviceID{})
	nonceLen    = 32
	clear       = 0
	maxReason   = 200
	maxMessage  = 7 << 10 // three certificates of 2 KiB, a signature, headers
	maxSig      = 72      // ASN.1 P-256
	maxPID      = 1 << 31
	maxUID      = 1<<32 - 1

	// codeRefused says that the device does not want the caller, whatever it tries
	// (docs/protocol.md, "Codes").
	codeRefused = 6
)

// refusal is what the far end said, bounded and not believed.
type refusal string

func (r refusal) Error() string { return fmt.Sprintf("%v: %q", ErrRefused, string(r)) }
func (r refusal) Unwrap() error { return ErrRefused }

// unwanted is a refusal of this caller in particular.
type unwanted struct{ refusal }

// Refused returns the reason. A connection manager that races carriers knows by
// this method that the device said no.
func (u unwanted) Refused() string { return string(u.refusal) }

// Unproven reports true: the device had not proven itself before it refused.
func (unwanted) Unproven() bool { return true }

// send writes one message with one call.
func send(w io.Writer, kind byte, body []byte) error {
	if len(body) > maxMessage {
		return fmt.Errorf("message of %d bytes, at most %d are sent", len(body), maxMessage)
	}
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// receive reads one message and never a byte beyond it, as the stream follows.
func receive(r io.Reader, want byte) ([]byte, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, ended(err)
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if kind := head[0]; kind != want && kind != kindRefused {
		return nil, fmt.Errorf("the far end does not speak peerlink's local protocol: message kind %d instead of %d", kind, want)
	}
	if n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes announced, at most %d are taken", n, maxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, ended(err)
	}
	if head[0] == kindRefused {
		return nil, readRefusal(body)
	}
	return body, nil
}

// ended says that an end before the proof is never a clean one.
func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the far end closed before it had proven its device: %w", io.ErrUnexpectedEOF)
	}
	return err
}

func readRefusal(body []byte) error {
	f := packed.NewFields(body, 2)
	reason, code := f.String(maxReason), uint64(0)
	if f.More() {
		code = f.Uint(1<<32 - 1)
	}
	switch err := f.Err(); {
	case err != nil:
		return err
	case code == codeRefused:
		return unwanted{refusal(reason)}
	}
	return refusal(reason)
}

// refuse tells the far end why, as far as it still listens.
func refuse(w io.Writer, cause error) {
	said := []any{escape.Cap(cause.Error(), maxReason)}
	if errors.Is(cause, identity.ErrNotTrusted) {
		// Which part of its chain is the reason is none of the caller's business.
		said = []any{"not trusted", codeRefused}
	}
	if body, err := packed.Pack(said...); err == nil {
		_ = send(w, kindRefused, body)
	}
}

type hello struct {
	service string // the caller's only
	device  identity.DeviceID
	nonce   [nonceLen]byte
}

func (h hello) encode() ([]byte, error) {
	if h.service == "" {
		return packed.Pack(wireMagic, wireVersion, clear, h.device[:], h.nonce[:])
	}
	return packed.Pack(wireMagic, wireVersion, clear, h.service, h.device[:], h.nonce[:])
}

type role string

const (
	caller role = "local caller"
	callee role = "local callee"
)

func decodeHello(b []byte, from role) (h hello, err error) {
	known := 5
	if from == caller {
		known = 6
	}
	f := packed.NewFields(b, known)
	if magic := f.String(len(wireMagic)); magic != wireMagic {
		f.Fail(fmt.Errorf("%q instead of %q: not a peerlink process", magic, wireMagic))
	}
	if v := f.Uint(1 << 16); v != wireVersion {
		f.Fail(versionError(v))
	}
	if f.Uint(1) != clear {
		f.Fail(errors.New("the other process asks for TLS on this machine, which this one does not speak"))
	}
	if from == caller {
		h.service = f.String(maxServiceLen)
	}
	f.Exactly(h.device[:])
	f.Exactly(h.nonce[:])
	return h, f.End()
}

// versionError tells what to do about two programs of different age.
func versionError(v uint64) error {
	return fmt.Errorf("the other process speaks version %d of the local protocol, this one speaks %d: update the older program and restart it", v, wireVersion)
}

// proof is a side's chain, what it says of its process, and the signature.
type proof struct {
	chain [][]byte
	creds creds
	sig   []byte
}

func (p proof) encode() ([]byte, error) {
	return packed.Pack(p.chain, uint64(p.creds.pid), uint64(p.creds.uid), p.sig)
}

func decodeProof(b []byte) (p proof, err error) {
	f := packed.NewFields(b, 4)
	p.chain = f.Blobs(identity.MaxChainLen, identity.MaxCertLen)
	p.creds = creds{pid: int(f.Uint(maxPID)), uid: int(f.Uint(maxUID))}
	p.sig = f.Bytes(maxSig)
	return p, f.End()
}
