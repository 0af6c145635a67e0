package peerlink

import (
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
func (m *ConnectionManager) Transport() http.RoundTripper { return m.transport }

type transport struct{ inner *http.Transport }

func newTransport(m *ConnectionManager) *transport {
	return &transport{&http.Transport{
		DialContext:         m.DialContext,
		IdleConnTimeout:     httpIdle,
		MaxIdleConnsPerHost: 16, // channels cost little
	}}
}

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
	resp, err := t.inner.RoundTrip(&out)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// CloseIdleConnections closes the channels that wait for another request;
// http.Client looks for this method.
func (t *transport) CloseIdleConnections() { t.inner.CloseIdleConnections() }

// deviceOf returns the device that a URL names.
func deviceOf(u *url.URL) (identity.DeviceID, error) {
	if u == nil || u.Scheme != "http+peer" && u.Scheme != "http" {
		return identity.DeviceID{}, fmt.Errorf("peerlink: %.200q: want http+peer://DEVICEID/path", u)
	}
	if u.Port() != "" {
		return identity.DeviceID{}, fmt.Errorf("peerlink: %.200q: a device has no ports", u)
	}
	device, err := identity.ParseDeviceID(u.Hostname())
	if err != nil {
		return identity.DeviceID{}, fmt.Errorf("peerlink: %.200q: want http+peer://DEVICEID/path: %w", u, err)
	}
	return device, nil
}
