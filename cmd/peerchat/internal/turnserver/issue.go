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
	"net/netip"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/pion/turn/v5"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/quota"
	"peerlink/internal/relay"
)

const (
	passLife = 12 * time.Hour
	// maxMembers bounds the members that are remembered for their credentials. One
	// that is forgotten is a stranger until it asks for credentials again.
	maxMembers = 4096
	// A device asks for credentials when it needs a relay and its credentials are 11 h
	// old, and again after 30 s where they do not work. An office behind one address
	// may need maxOfHost of them at once.
	issueEvery = 10 * time.Second
	// maxIssued bounds the members and networks whose credentials are counted.
	maxIssued = 4096
)

// issuer decides which devices get credentials, and makes them.
type issuer struct {
	secret  [32]byte
	member  func(identity.Peer) bool // nil: there are none
	only    bool                     // members
	members *lru.Cache[string, identity.Peer]
	sources *quota.Rates[source]
	nets    *quota.Rates[netip.Prefix]
	places  *places
}

func newIssuer(cfg Config, p *places) *issuer {
	i := &issuer{
		member: cfg.Member, only: cfg.MembersOnly, places: p,
		members: quota.NewLRU[string, identity.Peer](maxMembers),
		sources: quota.NewRates[source](maxIssued, rate.Every(issueEvery), maxOfHost),
		nets:    quota.NewRates[netip.Prefix](maxIssued, rate.Every(issueEvery/2), maxOfNet),
	}
	_, _ = rand.Read(i.secret[:]) // never fails
	return i
}

// pass returns the credentials of a device that has proven itself, or why there are
// none.
func (i *issuer) pass(peer identity.Peer, from netip.Addr, now time.Time) (relay.Pass, relay.Reason) {
	device := peer.Device.String()
	member := i.member != nil && i.member(peer)
	if member {
		i.members.Add(device, peer)
	}
	h := newHolder(device, member, from)
	switch {
	case !member && i.only:
		return relay.Pass{}, relay.MembersOnly
	case i.places.room(h) != nil:
		return relay.Pass{}, relay.Full
	case !i.sources.Allow(h.source(), now), !member && !i.nets.Allow(h.net, now):
		return relay.Pass{}, relay.Busy
	}
	expires := now.Add(passLife)
	name := strconv.FormatInt(expires.Unix(), 10) + ":" + device
	return relay.Pass{Username: name, Password: i.password(name), Expires: expires}, 0
}

func (i *issuer) password(username string) string {
	mac := hmac.New(sha256.New, i.secret[:])
	mac.Write([]byte(username))
	return base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// authorize implements turn.AuthHandler: it returns the key of a user name that
// this server has issued, and under which name pion keeps the user, which
// parseUser reads. Nothing is counted here, as the password is not checked yet.
func (i *issuer) authorize(r *turn.RequestAttributes) (user string, key []byte, ok bool) {
	until, device, ok := strings.Cut(r.Username, ":")
	seconds, err := strconv.ParseInt(until, 10, 64)
	if !ok || err != nil || len(r.Username) > relay.MaxUsername || time.Now().Unix() > seconds || i.only && !i.isMember(device) {
		return "", nil, false
	}
	return device + " " + addrName(r.SrcAddr), turn.GenerateAuthKey(r.Username, r.Realm, i.password(r.Username)), true
}

// parseUser reads what authorize wrote: the client's network and address, and the
// holder as it is now.
func (i *issuer) parseUser(user string) (client string, h holder, ok bool) {
	device, client, _ := strings.Cut(user, " ")
	_, at, _ := strings.Cut(client, " ")
	from, err := netip.ParseAddrPort(at)
	if err != nil {
		return "", holder{}, false
	}
	return client, newHolder(device, i.isMember(device), from.Addr()), true
}

// mayAllocate implements turn.QuotaHandler: no tells a device that it has all
// places that it may have, which is another thing than a relay that is full.
func (i *issuer) mayAllocate(user, _ string, _ net.Addr) bool {
	_, h, ok := i.parseUser(user)
	return ok && !errors.Is(i.places.room(h), quota.ErrKey)
}

// isMember tells what a device is now: one that is a member no more loses its
// room before its credentials expire.
func (i *issuer) isMember(device string) bool {
	peer, ok := i.members.Get(device)
	return ok && i.member(peer)
}

// addrName names a client's address; UDP and TCP have the same ones.
func addrName(a net.Addr) string { return a.Network() + " " + a.String() }

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
