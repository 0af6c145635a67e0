package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pion/turn/v3"
	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// The application protocols within TLS.
const (
	alpnPass = "peerlink-pass/1"
	alpnTURN = "stun.turn" // RFC 7443
)

const (
	passLife    = 12 * time.Hour
	maxPass     = 1 << 10
	maxUsername = 128
	fetchLimit  = 5 * time.Second
)

// Pass is what a device needs for a relay.
type Pass struct {
	Username, Password string
	Expires            time.Time
}

// ErrNoRelay is matched by Fetch's error when there is a node, but it does not
// relay for this device.
var ErrNoRelay = errors.New("the node does not relay for this device")

// Fetch asks the node at addr (HOST:PORT) for credentials. It blocks until they
// are here, 5 s at most. The node must hold the private key of node, and learns
// the device's id; nobody on the way does.
func Fetch(ctx context.Context, addr string, node ed25519.PublicKey, me *identity.Identity) (Pass, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	p, err := fetch(ctx, addr, node, me)
	if err != nil {
		return Pass{}, fmt.Errorf("relay: get credentials from %s: %w", addr, err)
	}
	return p, nil
}

func fetch(ctx context.Context, addr string, node ed25519.PublicKey, me *identity.Identity) (Pass, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return Pass{}, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpnPass}, Certificates: []tls.Certificate{me.Certificate()},
		// There is no authority to ask: the key itself is known.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			switch {
			case !ok || !bytes.Equal(key, node):
				return errors.New("another node than the multiaddress names is there")
			case cs.NegotiatedProtocol != alpnPass:
				return ErrNoRelay
			}
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return Pass{}, err
	}
	b, err := io.ReadAll(io.LimitReader(conn, maxPass+1))
	if err != nil {
		return Pass{}, err
	}
	return decodePass(b)
}

// decodePass reads a node's answer; an empty one says no.
func decodePass(b []byte) (Pass, error) {
	switch {
	case len(b) == 0:
		return Pass{}, ErrNoRelay
	case len(b) > maxPass:
		return Pass{}, fmt.Errorf("an answer of more than %d bytes", maxPass)
	}
	f := packed.NewFields(b, 4)
	if version := f.Uint(255); version != 1 {
		f.Fail(fmt.Errorf("an answer of version %d", version))
	}
	p := Pass{Username: f.String(maxUsername), Password: f.String(maxUsername)}
	p.Expires = time.UnixMilli(int64(f.Uint(1 << 53)))
	if p.Username == "" || p.Password == "" {
		f.Fail(errors.New("empty credentials"))
	}
	if err := f.Err(); err != nil { // what follows is a later version's
		return Pass{}, err
	}
	return p, nil
}

func (s *Server) issue(device identity.DeviceID, now time.Time) ([]byte, error) {
	expires := now.Add(passLife)
	name := strconv.FormatInt(expires.Unix(), 10) + ":" + device.String()
	return msgpack.Marshal([]any{uint8(1), name, s.password(name), uint64(expires.UnixMilli())})
}

func (s *Server) password(username string) string {
	mac := hmac.New(sha256.New, s.secret[:])
	mac.Write([]byte(username))
	return base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// authorize returns the key of a user name that this server has issued.
func (s *Server) authorize(username, realm string, from net.Addr) ([]byte, bool) {
	until, device, ok := strings.Cut(username, ":")
	seconds, err := strconv.ParseInt(until, 10, 64)
	now := time.Now()
	if !ok || err != nil || len(username) > maxUsername || now.Unix() > seconds {
		return nil, false
	}
	// The password is not checked yet, so a stranger can use up a device's
	// quota, but needs the device's id and the expiry, to the second, for that.
	if !s.used.admit(device, from.Network()+from.String(), now) {
		s.log.Debug("too many addresses of one device", "device", device)
		return nil, false
	}
	return turn.GenerateAuthKey(username, realm, s.password(username)), true
}

// certificate makes the node's key one that TLS can show.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(20, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// deviceOf returns the device that a handshake has proven: the first
// certificate's key signed it, so that must be the device's.
func deviceOf(cs tls.ConnectionState) (identity.Peer, error) {
	var chain [][]byte
	for _, c := range cs.PeerCertificates {
		chain = append(chain, c.Raw)
	}
	peer, err := identity.VerifyChain(chain, time.Now())
	if err != nil {
		return identity.Peer{}, err
	}
	if peer.Device != identity.DeviceID(sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)) {
		return identity.Peer{}, errors.New("the first certificate is not the device's")
	}
	return peer, nil
}
