package switchboard

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// Protocol is the WebSocket subprotocol.
const Protocol = "peerlink-switchboard.1"

// Every WebSocket message is binary, at most 32 KiB, and holds one msgpack array
//
//	[op uint, number uint, device bin 0 or 32, body bin, extra bin, …]
//
// whose unused elements are 0 or empty; a reader passes over further elements.
//
//	 1 challenge  server  body: nonce(32)
//	 2 join       client  body: card; extra: signature, purpose "switchboard-join",
//	                      of nonce(32) SHA-256(card)(32) and the name and port
//	                      that the client dialled
//	 3 joined     server
//	 4 ask        client  number; device
//	 5 card       server  number; body: that device's card
//	 6 send       client  number; device; body: sealed letter, at most 24 KiB;
//	                      extra: SHA-256 of the card it is sealed to
//	 7 taken      server  number: the letter is on its way
//	 8 absent     server  number: the device is not connected
//	 9 stale      server  number: it has another card by now
//	10 busy       server  number: too much waits for it already
//	11 letter     server  body: sealed letter
//
// The server speaks first. A client has one join, and nothing before it; the
// number is its own and comes back in the answer.
const (
	maxFrame  = 32 << 10
	maxSealed = 24 << 10
	maxExtra  = 128
	nonceLen  = 32
)

type op uint8

const (
	opChallenge op = 1 + iota
	opJoin
	opJoined
	opAsk
	opCard
	opSend
	opTaken
	opAbsent
	opStale
	opBusy
	opLetter
)

type frame struct {
	op     op
	number uint64
	device identity.DeviceID
	body   []byte
	extra  []byte
}

func (f frame) encode() ([]byte, error) {
	device := f.device[:]
	if f.device.IsZero() {
		device = []byte{}
	}
	full := func(b []byte) []byte { // never nil
		if b == nil {
			return []byte{}
		}
		return b
	}
	b, err := msgpack.Marshal([]any{uint8(f.op), f.number, device, full(f.body), full(f.extra)})
	if err == nil && len(b) > maxFrame {
		err = fmt.Errorf("a message of %d bytes, at most %d can be sent", len(b), maxFrame)
	}
	return b, err
}

func decodeFrame(b []byte) (f frame, err error) {
	if len(b) > maxFrame {
		return f, fmt.Errorf("a message of %d bytes, at most %d are taken", len(b), maxFrame)
	}
	r := packed.NewFields(b, 5)
	f.op = op(r.Uint(255))
	f.number = r.Uint(1 << 53) // what JavaScript can count
	device := r.Bytes(len(f.device))
	if len(device) != 0 && copy(f.device[:], device) != len(f.device) {
		r.Fail(fmt.Errorf("a device id of %d bytes", len(device)))
	}
	f.body, f.extra = r.Bytes(maxSealed), r.Bytes(maxExtra)
	if err := r.End(); err != nil {
		return frame{}, err
	}
	return f, nil
}
