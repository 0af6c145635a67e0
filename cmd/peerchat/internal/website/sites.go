package website

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"peerlink/identity"
)

// maxSite is how long a site's name may be: with the device's digits it is a
// label of DNS, of 63 bytes at most.
const maxSite = 63 - labelDigits - 1

// CheckSite tells why a name cannot be a site's: it becomes a part of a host's
// name.
func CheckSite(name string) error {
	bad := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	if name == "" || len(name) > maxSite || strings.ContainsFunc(name, bad) || name[0] == '-' || name[len(name)-1] == '-' {
		return fmt.Errorf("a site's name %.60q: want 1 to %d of a-z, 0-9 and, between them, -", name, maxSite)
	}
	return nil
}

// SiteURI is the URI under which a device's site of that name is asked for; the
// empty name is that of the site without one.
func SiteURI(device identity.DeviceID, name string) string {
	uri := "http://" + device.String()
	if name != "" {
		uri += "/" + name
	}
	return uri
}

// siteOf is the name in a channel's URI.
func siteOf(c net.Conn) (name string) {
	if named, ok := c.(interface{ URI() string }); ok {
		_, name, _ = strings.Cut(strings.TrimPrefix(named.URI(), "http://"), "/")
	}
	return name
}

// Share serves several sites on one listener, which it closes: each connection
// goes to the site that its URI names, and to that of the empty name, which is
// required, if there is none such. It returns when the listener has ended, with
// its error; the sites stay the caller's to close.
func Share(l net.Listener, sites map[string]*Server) error {
	if sites[""] == nil {
		return errors.Join(errors.New("website: a site without a name is required"), l.Close())
	}
	branches := map[string]*branch{}
	var wg sync.WaitGroup
	for name, s := range sites {
		b := &branch{of: l, conns: make(chan net.Conn), done: make(chan struct{})}
		branches[name] = b
		wg.Go(func() {
			_ = s.Serve(b) // it ends with the branch, or the site
			_ = b.Close()
		})
	}
	defer wg.Wait()
	defer func() {
		for _, b := range branches {
			_ = b.Close()
		}
		_ = l.Close()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		b := branches[siteOf(c)]
		if b == nil {
			b = branches[""]
		}
		select {
		case b.conns <- c: // a site takes them at once
		case <-b.done:
			_ = c.Close()
		}
	}
}

// branch is a listener of one site's connections.
type branch struct {
	of    net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.of.Addr() }
