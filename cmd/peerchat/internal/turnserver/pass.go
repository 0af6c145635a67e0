package turnserver

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pion/turn/v3"
	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/relay"
)

const (
	passLife = 12 * time.Hour
	alpnTURN = "stun.turn" // RFC 7443
)

// issue makes credentials for a device.
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
	if !ok || err != nil || len(username) > relay.MaxUsername || now.Unix() > seconds {
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
