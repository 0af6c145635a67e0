package ice

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// maxServers bounds Config.Servers: each is asked every few seconds.
	maxServers = 8
	// sharedLife is how long credentials made from a shared secret live: longer
	// than any allocation is refreshed with them is not needed, as each
	// allocation asks for new ones.
	sharedLife = 24 * time.Hour
	// stunPort and turnsPort are IANA's.
	stunPort  = 3478
	turnsPort = 5349
)

// Server is a STUN or TURN server that a Transport uses. The zero value is
// none.
type Server struct {
	// URL is "stun:HOST[:PORT]", "turn:HOST[:PORT][?transport=udp|tcp]" or
	// "turns:HOST[:PORT]" (TLS over TCP), as in RFC 7064 and 7065. A STUN server
	// is asked over UDP and TCP; without transport a TURN server is tried over
	// UDP, then TCP. Each TURN server is asked for reflexive addresses too.
	URL string
	// Username and Password are long-term credentials of a TURN server.
	Username, Password string
	// Secret is shared with the TURN server (coturn: use-auth-secret), and
	// short-lived credentials are made from it. It counts instead of Password;
	// Username is then only a label.
	Secret string
	// Credentials is asked for credentials before each allocation, if it is not
	// nil, and counts instead of the fields above. It must return when its
	// context ends.
	Credentials func(context.Context) (username, password string, err error)
	// TLS is how a "turns:" server is verified. Nil means the system's
	// authorities and the URL's host.
	TLS *tls.Config
}

// server is a parsed Server.
type server struct {
	Server
	scheme    string // "stun", "turn", "turns"
	host      string
	port      uint16
	transport string // "udp", "tcp", or "" for both
}

// CheckServerURL tells what is wrong with a Server's URL.
func CheckServerURL(s string) error {
	_, err := parseServer(Server{URL: s})
	return err
}

func parseServer(s Server) (server, error) {
	out := server{Server: s}
	bad := func(what string) (server, error) {
		return server{}, fmt.Errorf("ice: server %.80q: %s (want stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT)", s.URL, what)
	}
	var rest string
	var ok bool
	out.scheme, rest, ok = strings.Cut(s.URL, ":")
	out.port = stunPort
	switch {
	case !ok:
		return bad("no scheme")
	case out.scheme == "turns":
		out.port, out.transport = turnsPort, "tcp"
	case out.scheme != "stun" && out.scheme != "turn":
		return bad("unknown scheme")
	}
	rest, query, asked := strings.Cut(rest, "?")
	if asked {
		name, value, _ := strings.Cut(query, "=")
		if out.scheme == "stun" || name != "transport" || value != "udp" && value != "tcp" || out.scheme == "turns" && value == "udp" {
			return bad("unknown parameter")
		}
		out.transport = value
	}
	out.host = rest
	if host, port, err := net.SplitHostPort(rest); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("the port must be from 1 to 65535")
		}
		out.host, out.port = host, uint16(n)
	}
	if inner, ok := strings.CutPrefix(out.host, "["); ok {
		if out.host, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("no host")
		}
	}
	if out.host == "" || len(out.host) > 253 || strings.ContainsAny(out.host, "/@ ,[]") {
		return bad("no host")
	}
	if _, err := netip.ParseAddr(out.host); err != nil && strings.Contains(out.host, ":") {
		return bad("no address")
	}
	return out, nil
}

// addr is HOST:PORT.
func (s server) addr() string { return net.JoinHostPort(s.host, strconv.Itoa(int(s.port))) }

// String names the server without its secrets.
func (s server) String() string {
	out := s.scheme + ":" + s.addr()
	if s.transport != "" && s.scheme == "turn" {
		out += "?transport=" + s.transport
	}
	return out
}

func (s server) relays() bool { return s.scheme != "stun" }

// asks tells whether a binding request over the network is worth trying.
func (s server) asks(network string) bool {
	return s.scheme != "turns" && (s.transport == "" || s.transport == network)
}

// credentials returns those for one allocation.
func (s server) credentials(ctx context.Context) (username, password string, err error) {
	switch {
	case s.Credentials != nil:
		return s.Credentials(ctx)
	case s.Secret != "":
		username = strconv.FormatInt(time.Now().Add(sharedLife).Unix(), 10)
		if s.Username != "" {
			username += ":" + s.Username
		}
		return username, SharedPassword(s.Secret, username), nil
	case s.Username == "" || s.Password == "":
		return "", "", errors.New("no credentials for it are configured")
	default:
		return s.Username, s.Password, nil
	}
}

// SharedPassword is the password of a short-lived user name ("EXPIRY" or
// "EXPIRY:LABEL", in seconds since 1970) at a TURN server that shares secret
// with its users: base64 of HMAC-SHA-1, as coturn's use-auth-secret has it.
func SharedPassword(secret, username string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
