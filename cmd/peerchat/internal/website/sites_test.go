package website

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/identity"
)

// named is a connection whose channel has a URI.
type named struct {
	net.Conn
	uri string
}

func (n *named) URI() string { return n.uri }

// street are bob's sites behind one listener, and a client of a device for each
// URI.
func street(t *testing.T) func(from identity.DeviceID, uri string) *http.Client {
	t.Helper()
	dir := t.TempDir()
	sites := map[string]*Server{}
	for _, name := range []string{"", "docs", "app-2"} {
		cfg := Config{Names: []string{"app-2", "docs"}}
		if name != "" {
			cfg = Config{Folder: filepath.Join(dir, name)}
			write(t, filepath.Join(dir, name, "index.html"), "this is "+name, 0o644)
		}
		cfg.Allow = func(d identity.DeviceID) bool { return d == alice }
		cfg.PeerOf = func(c net.Conn) (identity.DeviceID, bool) { return c.(*named).Conn.(*peer).device, true }
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		sites[name] = s
	}
	l := &alley{newNetwork(), make(chan string, 1)}
	shared := make(chan error, 1)
	go func() { shared <- Share(l, sites) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-shared; !errors.Is(err, net.ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
		for _, s := range sites {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return func(from identity.DeviceID, uri string) *http.Client {
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			l.uris <- uri
			return l.dial(ctx, from)
		}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
}

// alley is a network whose connections have URIs, one after the other.
type alley struct {
	*network
	uris chan string
}

func (l *alley) Accept() (net.Conn, error) {
	c, err := l.network.Accept()
	if err != nil {
		return nil, err
	}
	return &named{c, <-l.uris}, nil
}

func TestEachSiteHasItsOwnName(t *testing.T) {
	to := street(t)
	for name, want := range map[string]string{"docs": "this is docs", "app-2": "this is app-2"} {
		if resp, body := get(t, to(alice, SiteURI(bob, name)), "/"); resp.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: %s %q", name, resp.Status, body)
		}
		if resp, body := get(t, to(mallory, SiteURI(bob, name)), "/"); resp.StatusCode != http.StatusForbidden || strings.Contains(body, want) {
			t.Errorf("%s, of a stranger: %s %q", name, resp.Status, body)
		}
	}
	for _, name := range []string{"", "nothing", "docs/", "../docs", "DOCS"} { // none of these is there
		if resp, body := get(t, to(alice, SiteURI(bob, name)), "/"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "app-2, docs") {
			t.Errorf("%q: %s %q", name, resp.Status, body)
		}
	}
	if resp, body := get(t, to(mallory, SiteURI(bob, "")), "/"); resp.StatusCode != http.StatusForbidden || strings.Contains(body, "docs") {
		t.Errorf("a stranger learns the names: %s %q", resp.Status, body)
	}
}

func TestASiteHasAHostOfItsOwn(t *testing.T) {
	dial := func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }
	hosts := map[string]bool{}
	for _, site := range []string{"", "docs", "app"} {
		g, err := NewGateway(GatewayConfig{Device: bob, Site: site, Dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		host := strings.TrimSuffix(strings.TrimPrefix(g.URL(&net.TCPAddr{Port: 80}), "http://"), "/")
		label, _, _ := strings.Cut(host, ".")
		if hosts[host] || len(label) > 63 || !strings.HasSuffix(host, bob.String()[:labelDigits]+".localhost") {
			t.Errorf("%q has the host %q", site, host)
		}
		hosts[host] = true
	}
	for _, bad := range []string{"a.b", "A", "-a", "a-", "a_b", "ä", "a/b", strings.Repeat("a", maxSite+1)} {
		if CheckSite(bad) == nil {
			t.Errorf("a site called %q", bad)
		}
		if _, err := NewGateway(GatewayConfig{Device: bob, Site: bad, Dial: dial}); err == nil {
			t.Errorf("a gateway for %q", bad)
		}
	}
	if err := Share(newNetwork(), map[string]*Server{}); err == nil {
		t.Error("sites without one for other names")
	}
}
