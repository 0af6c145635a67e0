package chat

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"peerlink"
	"peerlink/internal/escape"
)

// URI is under which messages are exchanged.
const URI = "message://1"

const (
	// maxFrame bounds a message on the wire, before it is read: a text of control
	// characters is six times as long in JSON.
	maxFrame  = 6*MaxText + 1024
	maxReason = 255
)

// letter is a message on the wire.
type letter struct {
	ID   string `json:"id"`
	At   int64  `json:"at"`
	Text string `json:"text"`
}

// receipt answers a letter.
type receipt struct {
	Ack string `json:"ack,omitempty"`
	No  string `json:"no,omitempty"`
	Why string `json:"why,omitempty"`
}

var errProtocol = errors.New("the device broke the protocol of messages")

func encode(m Message) ([]byte, error) {
	return json.Marshal(letter{hexOf(m.ID), m.At.UnixMilli(), m.Text})
}

// decode reads a letter of a stranger. Unknown keys are left alone: a newer
// release may say more.
func decode(b []byte) (m Message, err error) {
	var l letter
	if err := one(b, &l); err != nil {
		return m, err
	}
	if m.ID, err = parseID(l.ID); err != nil {
		return m, err
	}
	m.Text, m.At = l.Text, time.UnixMilli(l.At)
	return m, nil
}

func parseID(s string) (id [idLen]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != idLen {
		return id, fmt.Errorf("%w: the id %.40q", errProtocol, s)
	}
	return [idLen]byte(b), nil
}

// decodeReceipt returns the id, and why it was refused; "" for an ack.
func decodeReceipt(b []byte) (id [idLen]byte, why string, err error) {
	var r receipt
	if err := one(b, &r); err != nil {
		return id, "", err
	}
	if r.Ack != "" {
		id, err = parseID(r.Ack)
		return id, "", err
	}
	id, err = parseID(r.No)
	why = escape.Cap(r.Why, maxReason)
	why = cmp.Or(why, "no reason was given")
	return id, why, err
}

func hexOf(id [idLen]byte) string { return hex.EncodeToString(id[:]) }

// send sends a receipt.
func send(ms *peerlink.Messages, r receipt) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return ms.Send(b)
}

// one decodes one JSON value.
func one(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one value", errProtocol)
	}
	return nil
}
