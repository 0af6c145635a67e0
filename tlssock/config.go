package tlssock

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"peerlink/identity"
)

// ALPN is the application protocol that both ends must name. A peer that
// names none or another one is refused.
const ALPN = "peerlink/1"

// defaultHandshakeTimeout is generous: two round trips over the worst link we
// care for (600 ms, a lost packet each way) take about 5 s.
const defaultHandshakeTimeout = 10 * time.Second

// ErrRefused is matched when the far end ended the connection with a TLS alert
// before it had said anything: it does not trust this device, does not speak
// peerlink/1, or its clock says that a certificate is not valid.
var ErrRefused = errors.New("the peer refused this device")

// WrongDeviceError is the error of a client that found another key than the one
// that was dialled.
type WrongDeviceError struct {
	// Dialled is the device that the caller asked for.
	Dialled identity.DeviceID
	// Found is the device of the certificate that was presented. It is a claim:
	// possession of its key has not been shown.
	Found identity.DeviceID
}

// Error says which device was dialled and which one answered.
func (e *WrongDeviceError) Error() string {
	return fmt.Sprintf("dialled device %s, found %s", e.Dialled, e.Found)
}

// Permanent reports that a further call to the same address would fail alike.
func (e *WrongDeviceError) Permanent() bool { return true }

// Config has this end's device and which devices it lets in. It may be copied and used
// concurrently.
type Config struct {
	// Identity is this end's device. It is required.
	Identity *identity.Identity
	// Trust is asked about the peer inside each handshake, on either side. Nil
	// lets all in.
	Trust *identity.Trust
	// HandshakeTimeout bounds a handshake. 0 means 10 s; negative means that
	// only the context does (a Listener then takes 10 s all the same).
	HandshakeTimeout time.Duration
	// Logger hears of handshakes that a Listener saw fail, at level Debug and at
	// most 10 times a second. Nil is silent.
	Logger *slog.Logger
}

// ClientTLS returns the TLS configuration of an end that calls peer, for
// transports that run TLS themselves, such as QUIC. Their session resumption
// and 0-RTT must stay off. Take the peer from PeerOf after the handshake. With
// a zero peer, or without an Identity, each handshake fails.
func (c Config) ClientTLS(peer identity.DeviceID) *tls.Config {
	return c.base(func(cs tls.ConnectionState) error {
		_, err := c.checkDialled(cs, peer)
		return err
	})
}

// ServerTLS returns the TLS configuration of an end that is called, with the
// same conditions as ClientTLS.
func (c Config) ServerTLS() *tls.Config {
	return c.base(func(cs tls.ConnectionState) error {
		_, err := c.check(cs)
		return err
	})
}

func (c Config) base(verify func(tls.ConnectionState) error) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPN},
		// The standard verification knows domains and authorities; ours knows
		// devices. VerifyConnection, unlike VerifyPeerCertificate, is also asked
		// should a session ever be resumed.
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true,
		VerifyConnection:   verify,
		// A ticket would outlive a ban.
		SessionTicketsDisabled: true,
		// Links carry bulk: small first records only cost throughput.
		DynamicRecordSizingDisabled: true,
	}
	if c.Identity != nil {
		cfg.Certificates = []tls.Certificate{c.Identity.Certificate()}
	}
	return cfg
}

// checkDialled is the verdict of an end that has dialled. The two ids are
// compared before anything else that was presented is believed.
func (c Config) checkDialled(cs tls.ConnectionState, dialled identity.DeviceID) (identity.Peer, error) {
	if dialled.IsZero() {
		return identity.Peer{}, errors.New("no device id was dialled")
	}
	if found, ok := firstKey(cs); ok && found != dialled {
		return identity.Peer{}, &WrongDeviceError{Dialled: dialled, Found: found}
	}
	return c.check(cs)
}

// check is the verdict on a peer, inside the handshake. It runs before the peer
// has shown possession of its key, so its result is a claim until the handshake
// is complete.
func (c Config) check(cs tls.ConnectionState) (identity.Peer, error) {
	if cs.NegotiatedProtocol != ALPN {
		return identity.Peer{}, fmt.Errorf("application protocol %.40q, want %q", cs.NegotiatedProtocol, ALPN)
	}
	peer, err := verify(cs)
	if err != nil {
		return identity.Peer{}, err
	}
	return peer, c.Trust.Check(peer)
}

// PeerOf returns the device that a finished handshake with ClientTLS or
// ServerTLS has proven. It verifies the chain once more (about 0.2 ms), does
// not ask the trust store again, and fails on any other state.
func PeerOf(cs tls.ConnectionState) (identity.Peer, error) {
	if !cs.HandshakeComplete || cs.NegotiatedProtocol != ALPN {
		return identity.Peer{}, errors.New("tlssock: no finished " + ALPN + " handshake")
	}
	return verify(cs)
}

// verify checks the chain and that its device has the key that TLS proves:
// the first certificate's. VerifyChain takes certificates in any order, so
// without this an authority could show its own certificate first, prove its
// own key, and be taken for any device whose certificates follow.
func verify(cs tls.ConnectionState) (identity.Peer, error) {
	if n := len(cs.PeerCertificates); n > identity.MaxChainLen {
		return identity.Peer{}, fmt.Errorf("%w: %d certificates, at most %d are taken", identity.ErrChain, n, identity.MaxChainLen)
	}
	der := make([][]byte, len(cs.PeerCertificates))
	for i, c := range cs.PeerCertificates {
		der[i] = c.Raw
	}
	peer, err := identity.VerifyChain(der, time.Now())
	if err != nil {
		return identity.Peer{}, err
	}
	if found, ok := firstKey(cs); !ok || found != peer.Device {
		return identity.Peer{}, fmt.Errorf("%w: the first certificate is not the device's", identity.ErrChain)
	}
	return peer, nil
}

// firstKey is the id of the key that CertificateVerify is made with.
func firstKey(cs tls.ConnectionState) (id identity.DeviceID, ok bool) {
	if len(cs.PeerCertificates) == 0 {
		return id, false
	}
	return sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo), true
}
