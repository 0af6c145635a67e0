package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// maxPath is how long a Unix socket's path may be: the shortest of the usual
// systems takes 103 bytes, Linux 107; the system itself says no to the rest.
const maxPath = 107

// Address is where a connection goes, or is taken. The zero value is none.
type Address struct {
	// Network is "tcp" or "unix".
	Network string
	// Addr is HOST:PORT, in the one form that rules are compared in, or the
	// absolute path of a socket.
	Addr string
}

// String returns the address as it is written in a rule.
func (a Address) String() string { return a.Addr }

// use is what an address is for.
type use int

const (
	toDial   use = iota
	toListen     // port 0 is any, host * is all addresses
	asRule       // port * is all ports
)

// ParseAddress reads HOST:PORT or /PATH of a target.
func ParseAddress(s string) (Address, error) { return parse(s, toDial) }

// ParseListen reads [HOST:]PORT or /PATH of a listener. Without a HOST it is
// 127.0.0.1; with "*" it is every address of the machine. Port 0 is any that is
// free.
func ParseListen(s string) (Address, error) {
	if s != "" && !strings.HasPrefix(s, "/") && !strings.Contains(s, ":") {
		s = ":" + s
	}
	if strings.HasPrefix(s, ":") {
		s = "127.0.0.1" + s
	}
	return parse(s, toListen)
}

func parse(s string, why use) (Address, error) {
	a, err := parseAny(s, why)
	if err != nil {
		return Address{}, fmt.Errorf("address %.120q: %w", s, err)
	}
	return a, nil
}

func parseAny(s string, why use) (Address, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return Address{}, errors.New("it has characters that cannot be printed")
	}
	if strings.HasPrefix(s, "/") {
		if len(s) > maxPath {
			return Address{}, fmt.Errorf("a socket's path has %d bytes at most", maxPath)
		}
		return Address{"unix", s}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, errors.New("want HOST:PORT, or the absolute path of a Unix socket")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case port == "*" && why == asRule:
	case err != nil || n == 0 && why == toDial:
		return Address{}, fmt.Errorf("port %.20q: want a number from 1 to 65535", port)
	default:
		port = strconv.FormatUint(n, 10)
	}
	if host, err = oneForm(host, why); err != nil {
		return Address{}, err
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

// oneForm writes a host so that equal ones look alike.
func oneForm(host string, why use) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), nil
	}
	if host == "*" && why != toDial {
		return host, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	emptyLabel := strings.Contains("."+host+".", "..") // RFC 1034 section 3.1: only the root's is empty
	if emptyLabel || len(host) > 253 || strings.ContainsAny(host, " *:/[]%") {
		return "", errors.New("want a host's name or IP address before the port")
	}
	return host, nil
}

// listen is the address as package net takes it.
func (a Address) listen() string {
	if port, all := strings.CutPrefix(a.Addr, "*:"); all && a.Network == "tcp" {
		return ":" + port
	}
	return a.Addr
}

// Spec says what to forward: what is taken at Listen goes to Target.
type Spec struct{ Listen, Target Address }

// ParseSpec reads [HOST:]PORT:HOST:PORT as ssh's -L and -R have it. Either end
// may be the absolute path of a Unix socket, which then has no colon; IPv6
// addresses stand in brackets.
func ParseSpec(s string) (Spec, error) {
	fields, err := split(s)
	var sp Spec
	at := len(fields) - 2 // where the target begins
	if err == nil && len(fields) > 0 && strings.HasPrefix(fields[len(fields)-1], "/") {
		at++
	}
	switch {
	case err != nil:
	case at < 1 || at > 2 || at == 2 && (strings.HasPrefix(fields[0], "/") || strings.HasPrefix(fields[1], "/")):
		err = errors.New("want [HOST:]PORT:HOST:PORT, with /PATH for either end")
	default:
		if sp.Listen, err = ParseListen(strings.Join(fields[:at], ":")); err == nil {
			sp.Target, err = ParseAddress(strings.Join(fields[at:], ":"))
		}
	}
	if err != nil {
		return Spec{}, fmt.Errorf("forward %.200q: %w", s, err)
	}
	return sp, nil
}

// split cuts at the colons outside brackets. The brackets stay.
func split(s string) ([]string, error) {
	var fields []string
	from, inside := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[' && inside, c == ']' && !inside:
			return nil, errors.New("brackets do not match")
		case c == '[' || c == ']':
			inside = c == '['
		case c == ':' && !inside:
			fields = append(fields, s[from:i])
			from = i + 1
		}
	}
	if inside {
		return nil, errors.New("brackets do not match")
	}
	return append(fields, s[from:]), nil
}
