package website

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A proxy passes what it understands: requests and responses of HTTP/1.1, and
// WebSockets. What follows another change of protocol would be read by one side as
// requests that the proxy has never looked at.

// passable refuses requests that are none for a web server behind a proxy.
func passable(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodConnect || r.Method == "PRI" {
		part(w)
		problem(w, r, http.StatusNotImplemented, "A site takes no "+r.Method+" requests.")
		return false
	}
	return true
}

// onlyWebSocket drops the wish to change the protocol of a request that is passed
// on, unless the request opens a WebSocket. A server may ignore such a wish
// (RFC 9110, section 7.8), and so may a proxy.
func onlyWebSocket(out *http.Request) {
	if !webSocket(out) {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
		out.Header.Del("HTTP2-Settings")
	}
}

// webSocket reports whether a request opens a WebSocket (RFC 6455, section 4.1).
func webSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ContentLength == 0 && r.Header.Get("Sec-WebSocket-Key") != "" && toWebSocket(r.Header)
}

func toWebSocket(h http.Header) bool {
	up := h.Values("Upgrade")
	return len(up) == 1 && strings.EqualFold(up[0], "websocket")
}

// switched is an error for a response that changes to another protocol than the
// request may ask for.
func switched(r *http.Response) error {
	if r.StatusCode == http.StatusSwitchingProtocols && (!webSocket(r.Request) || !toWebSocket(r.Header)) {
		return errors.New("it changed to another protocol, which it was not asked to")
	}
	return nil
}

// maxForms is in how many forms a path is looked at: as it came, and decoded once,
// twice, as servers behind servers do by mistake, and once more.
const maxForms = 4

// climbs reports whether an escaped path may lead a server out of a folder: an
// element that is "..", be it escaped, escaped again, in overlong UTF-8, between
// backslashes or with parameters behind it.
func climbs(path string) bool {
	for range maxForms {
		elements := strings.FieldsFunc(overlong.Replace(path), func(c rune) bool { return c == '/' || c == '\\' || c == 0 })
		if slices.ContainsFunc(elements, func(e string) bool { e, _, _ = strings.Cut(e, ";"); return strings.TrimSpace(e) == ".." }) || strings.ContainsAny(path, "\\\x00") {
			return true
		}
		next, err := url.PathUnescape(path)
		if err != nil { // it may be decoded in part
			return strings.Contains(strings.ToLower(path), "%2e")
		}
		if next == path {
			return false
		}
		path = next
	}
	return false
}

// overlong are forms of the dot and of both slashes that are no UTF-8, but were
// taken by servers.
var overlong = strings.NewReplacer("\xc0\xae", ".", "\xe0\x80\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xaf", "/", "\xc1\x9c", "\\")
