package peerlink

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"peerlink/identity"
)

// httpIdle is how long a channel of Transport waits for another request, as
// http.DefaultTransport has it. Afterwards its link may become idle, too.
const httpIdle = 90 * time.Second

// Transport returns what carries HTTP to devices, for http.Client: URLs are
// http+peer://DEVICEID/path, or http://DEVICEID/path for programs that insist
// on the scheme (WebSocket libraries). The other side runs
//
//	l, err := manager.Listen("http://*")
//	http.Serve(l, handler) // r.RemoteAddr is the caller's DeviceID
//
// Each connection of HTTP/1.1 is a channel with the URI "http://DEVICEID",
// kept alive for 90 s between requests. There is one Transport per manager. It
// may be used concurrently, and Close ends its connections.
func (m *ConnectionManager) Transport() http.RoundTripper {
	m.made()
	return m.transport.http1
}

// HTTP2Transport is Transport with HTTP/2 alone: all requests to a device share one
// channel, and bodies stream in both directions at once, as gRPC and connect-go
// want it. The other side must take HTTP/2 without TLS, which a channel does not
// need: http.Server does if its Protocols have UnencryptedHTTP2, and HTTP/1.1 on
// the same listener if they have HTTP1, too.
func (m *ConnectionManager) HTTP2Transport() http.RoundTripper {
	m.made()
	return m.transport.http2
}

// transports are a manager's.
type transports struct{ http1, http2 *transport }

// CloseIdleConnections closes the channels of both that carry no request.
func (t *transports) CloseIdleConnections() {
	t.http1.CloseIdleConnections()
	t.http2.CloseIdleConnections()
}

func newTransport(m *ConnectionManager) *transports {
	over := func(use func(*http.Protocols, bool)) *transport {
		protocols := new(http.Protocols)
		use(protocols, true)
		return &transport{&http.Transport{
			DialContext:         m.DialContext,
			Protocols:           protocols,
			IdleConnTimeout:     httpIdle,
			MaxIdleConnsPerHost: 16, // channels cost little
		}}
	}
	return &transports{over((*http.Protocols).SetHTTP1), over((*http.Protocols).SetUnencryptedHTTP2)}
}

type transport struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	device, err := deviceOf(req.URL)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	out, u := *req, *req.URL // a RoundTripper must not change its request
	u.Scheme, u.Host = "http", device.String()
	out.URL = &u
	resp, err := t.Transport.RoundTrip(&out)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// deviceOf returns the device that a URL names.
func deviceOf(u *url.URL) (device identity.DeviceID, err error) {
	switch {
	case u == nil || u.Scheme != "http+peer" && u.Scheme != "http":
		err = errors.New("it has another scheme")
	case u.Port() != "":
		err = errors.New("a device has no ports")
	default:
		device, err = identity.ParseDeviceID(u.Hostname())
	}
	if err != nil {
		err = fmt.Errorf("peerlink: %.200q: want http+peer://DEVICEID/path: %w", u, err)
	}
	return device, err
}
