package webrtc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/escape"
)

// DescriptionType says what a Description is.
type DescriptionType string

// The types of a Description.
const (
	Offer  DescriptionType = "offer"
	Answer DescriptionType = "answer"
	// Refusal ends a call before it came to anything, from either side.
	Refusal DescriptionType = "refusal"
)

// Description is one side's part of a call, for a signalling of the
// application's own, which may carry it as JSON. It is at most 8 KiB long, and
// not secret: a change can keep two devices apart, and nothing else.
type Description struct {
	// Call names the call: 32 hex digits.
	Call string          `json:"call"`
	Type DescriptionType `json:"type"`
	// SDP is the session description of an Offer or an Answer.
	SDP string `json:"sdp,omitempty"`
	// Candidates are the ones known by then, at most 16; further ones follow, each
	// by itself.
	Candidates []string `json:"candidates,omitempty"`
	// Reason is a Refusal's, at most 200 bytes. From a peer it is a stranger's
	// text: quote it before showing it.
	Reason string `json:"reason,omitempty"`
	// Code is what a Refusal means to a program. Bring it as it is, in both
	// directions.
	Code uint32 `json:"code,omitempty"`
}

// Candidate is a further way to one side of a call.
type Candidate struct {
	// Call names the call, as in Description.
	Call string `json:"call"`
	// Candidate is RFC 8839's candidate-attribute, without "a=".
	Candidate string `json:"candidate"`
}

// errOwnSignaller is what the methods for callbacks return without them.
var errOwnSignaller = errors.New("webrtc: this Transport has a Signaller, which brings it the peers' signals")

// SetRemoteDescription takes what a peer's OnLocalDescription was given. from is
// the device that it came from, as far as the application knows: nothing is
// believed until the device has proven itself over the connection. It does not
// block. The error says what is wrong with it, or that it belongs to no call
// that runs, as one that came late; either way nothing has changed. Where
// an Offer crosses one of this side's, the call of the smaller id stands, and the
// application does nothing.
func (t *Transport) SetRemoteDescription(from identity.DeviceID, d Description) error {
	kinds := map[DescriptionType]calls.Kind{Offer: calls.Offer, Answer: calls.Answer, Refusal: calls.Refusal}
	k, ok := kinds[d.Type]
	if !ok {
		return fmt.Errorf("webrtc: description of type %.40q, want %q, %q or %q", d.Type, Offer, Answer, Refusal)
	}
	if len(d.Candidates) > maxCandidates {
		return fmt.Errorf("webrtc: %s with %d candidates, at most %d are taken", d.Type, len(d.Candidates), maxCandidates)
	}
	return t.hand(from, d.Call, &message{kind: k, sdp: d.SDP, candidates: d.Candidates, code: calls.Code(d.Code), reason: d.Reason})
}

// AddRemoteCandidate takes what a peer's OnLocalCandidate was given, before or
// after its Description; one that comes before it is kept for 10 s. It does not
// block. A candidate that may not be dialled, as it is a name or a loopback
// address, is passed over without an error.
func (t *Transport) AddRemoteCandidate(from identity.DeviceID, c Candidate) error {
	return t.hand(from, c.Call, &message{kind: calls.More, candidates: []string{c.Candidate}})
}

// hand treats a peer's message as if a Signaller had brought it, but from a
// device that is not proven.
func (t *Transport) hand(from identity.DeviceID, call string, m *message) error {
	if t.cfg.Signaller != nil {
		return errOwnSignaller
	}
	id, err := hex.DecodeString(call)
	switch {
	case err != nil || len(id) != len(m.id):
		return fmt.Errorf("webrtc: call %.80q, want %d hex digits", call, 2*len(m.id))
	case from.IsZero():
		return errors.New("webrtc: a signal of no device")
	case t.board.Ended():
		return errClosed
	}
	m.id = callID(id)
	b, err := m.encode()
	if err != nil {
		return err
	}
	return t.board.Handle(identity.Peer{Device: from}, b)
}

// Post brings a message on its way, over the Signaller or the application.
func (t carrier) Post(ctx context.Context, to identity.DeviceID, m *message) error {
	if t.cfg.Signaller != nil {
		b, err := m.encode()
		if err != nil {
			return err
		}
		return t.cfg.Signaller.Send(ctx, to, b)
	}
	call := hex.EncodeToString(m.id[:])
	if m.kind == calls.More {
		var errs []error
		for _, c := range m.candidates {
			errs = append(errs, t.cfg.OnLocalCandidate(ctx, to, Candidate{call, c}))
		}
		return errors.Join(errs...)
	}
	types := map[calls.Kind]DescriptionType{calls.Offer: Offer, calls.Answer: Answer, calls.Refusal: Refusal}
	return t.cfg.OnLocalDescription(ctx, to, Description{
		Call: call, Type: types[m.kind], SDP: m.sdp, Candidates: m.candidates, Code: uint32(m.code), Reason: escape.Cap(m.reason, calls.MaxReason),
	})
}
