package dht

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// The push protocol is that of docs/protocol.md, "Push": the first frame of a stream
// says what is wanted, and the last may be refused, after which the node closes it.
// The proof of a listener names both libp2p hosts and the node's nonce, so that it
// is good for one stream: a hostile node cannot have it made for another node's
// challenge and listen there itself.
const pushProtocol protocol.ID = "/peerlink/push/1"

type kind uint8

// Frames are length:uint16 | kind:uint8 | payload[length-1], big-endian.
const (
	kindPut       kind = iota + 1 // recipient[32] | sealed signal
	kindTaken                     // status:uint8
	kindListen                    // device[32]
	kindChallenge                 // nonce[32]
	kindProof                     // msgpack [chain, signature]
	kindListening                 // the node's time:uint64, Unix milliseconds
	kindSignal                    // sealed signal
	kindRefused                   // a reason in UTF-8
	kindHold                      // recipient[32] | seconds:uint16 | sealed letter
	kindWho                       // device[32]
	kindRecord                    // the device's record
	kindProbe                     // port:uint16
	kindProbed                    // status:uint8 | address[16], as the node sees it
)

// Statuses of a taken frame.
const (
	statusStored = iota + 1 // kept for a bounded time until the recipient listens
	statusPushed            // handed to at least one stream of the recipient, and kept
)

// Bounds of frames' payloads in bytes.
const (
	idLen         = len(identity.DeviceID{})
	nonceLen      = 32
	maxRefusalLen = 200
	maxProofLen   = identity.MaxChainLen*(identity.MaxCertLen+3) + maxSignature + 16
	maxPutLen     = idLen + maxSealedLen
	secondsLen    = 2
	maxHoldLen    = maxPutLen + secondsLen
	timeLen       = 8
	listenPurpose = "listen"
)

// appendFrame appends one frame to b. The payload must fit a frame.
func appendFrame(b []byte, k kind, payload ...[]byte) []byte {
	n := 1
	for _, p := range payload {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, byte(k))
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

// readFrame reads one frame with at most most bytes of payload; a longer one is
// refused from its header.
func readFrame(r io.Reader, most int) (kind, []byte, error) {
	var h [3]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(h[:])) - 1
	if n < 0 || n > most {
		return 0, nil, fmt.Errorf("push: a frame of kind %d announces %d bytes, at most %d are taken: %w", h[2], n, most, errOversize)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind(h[2]), b, nil
}

// readKind reads one frame that must be of kind want, or a refusal.
func readKind(r io.Reader, want kind, most int) ([]byte, error) {
	k, b, err := readFrame(r, max(most, maxRefusalLen))
	switch {
	case err != nil:
		return nil, err
	case k == kindRefused:
		return nil, fmt.Errorf("push: the node refused: %.200q", b)
	case k != want:
		return nil, fmt.Errorf("push: found a frame of kind %d, want %d", k, want)
	case len(b) > most:
		return nil, fmt.Errorf("push: a frame of kind %d has %d bytes, at most %d are taken", k, len(b), most)
	}
	return b, nil
}

// listenStatement is nonce[32] | device[32] | length:uint8, node | length:uint8, listener.
func listenStatement(nonce []byte, device identity.DeviceID, node, listener peer.ID) []byte {
	b := append([]byte(nil), nonce...)
	b = append(b, device[:]...)
	for _, p := range []peer.ID{node, listener} {
		b = append(b, byte(len(p)))
		b = append(b, p...)
	}
	return b
}

func encodeProof(id *identity.Identity, statement []byte) ([]byte, error) {
	sig, err := id.Sign(listenPurpose, statement)
	if err != nil {
		return nil, err
	}
	return packed.Pack(id.Peer().Chain(), sig)
}

// parseProof takes a proof apart without believing it.
func parseProof(b []byte) (chain [][]byte, sig []byte, err error) {
	f := packed.NewFields(b, 2)
	chain, sig = readChain(f), f.Bytes(maxSignature)
	return chain, sig, f.End()
}
