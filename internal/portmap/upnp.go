package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/httpu"
	"github.com/huin/goupnp/ssdp"
)

const (
	// maxRouterBody bounds what a router may say in one answer: descriptions are
	// a few KiB.
	maxRouterBody = 64 << 10
	searchLimit   = 2 * time.Second // of which routers use up to one
	routerLimit   = 3 * time.Second // for one request
	maxRouters    = 4
)

// gateway is what all the services of UPnP that map ports have in common.
type gateway interface {
	AddPortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string, internalPort uint16, internalClient string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetSpecificPortMappingEntryCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) (internalPort uint16, internalClient string, enabled bool, description string, lease uint32, err error)
}

// byUPnP looks for routers and asks each.
func (cfg Config) byUPnP(ctx context.Context, own []netip.Addr, protocol string, port uint16) (*mapping, error) {
	locate := cfg.locate
	if locate == nil {
		locate = func(ctx context.Context) ([]string, error) { return search(ctx, own) }
	}
	locations, err := locate(ctx)
	if err != nil {
		return nil, fmt.Errorf("UPnP: search: %w", err)
	}
	err = errors.New("no router answers")
	for _, l := range locations[:min(len(locations), maxRouters)] {
		var m *mapping
		if m, err = cfg.mapByUPnP(ctx, l, protocol, port); err == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("UPnP: %w", err)
}

// search asks the local networks for routers, and returns where each describes
// itself.
func search(ctx context.Context, own []netip.Addr) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, searchLimit)
	defer cancel()
	var out []string
	for _, a := range own[:min(len(own), maxRouters)] {
		c, err := httpu.NewHTTPUClientAddr(a.String())
		if err != nil {
			continue
		}
		answers, err := ssdp.RawSearch(ctx, c, "urn:schemas-upnp-org:device:InternetGatewayDevice:1", 2) //nolint:bodyclose // datagrams have none
		_ = c.Close()
		if err != nil {
			return out, err
		}
		for _, r := range answers {
			if l := r.Header.Get("Location"); l != "" && len(l) < 256 {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// mapByUPnP asks one router, at the place that it says it is.
func (cfg Config) mapByUPnP(ctx context.Context, location, protocol string, port uint16) (*mapping, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("location %.80q: %w", location, err)
	}
	host, err := netip.ParseAddr(u.Hostname())
	near := host.IsPrivate() || cfg.loopback && host.IsLoopback()
	if err != nil || u.Scheme != "http" || !host.Is4() || !near {
		return nil, fmt.Errorf("location %.80q is not on the local network", location)
	}
	client := routerClient(host)
	root, err := describe(ctx, client, u)
	if err != nil {
		return nil, fmt.Errorf("description at %s: %w", u.Host, err)
	}
	services := gatewaysOf(root, u, client)
	if len(services) == 0 {
		return nil, fmt.Errorf("router %s maps no ports", host)
	}
	own, err := ownAddrTowards(ctx, u.Host)
	if err != nil {
		return nil, err
	}
	for _, g := range services {
		var m *mapping
		if m, err = mapAt(ctx, g, own, strings.ToUpper(protocol), port); err == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("router %s: %w", host, err)
}

// ownAddrTowards returns the address that this machine has on a router's network.
func ownAddrTowards(ctx context.Context, router string) (netip.Addr, error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp4", router) // sends nothing
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// mapAt has a port mapped and looks whether it was done.
func mapAt(ctx context.Context, g gateway, own netip.Addr, protocol string, port uint16) (*mapping, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*routerLimit)
	defer cancel()
	text, err := g.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for its address: %w", err)
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil, fmt.Errorf("its address is %.80q", text)
	}
	// The address first: a mapping that is of no use is not asked for.
	if err := checkOutside(netip.AddrPortFrom(ip, port)); err != nil {
		return nil, err
	}
	outside, lease, err := add(ctx, g, own, protocol, port)
	if err != nil {
		return nil, fmt.Errorf("map a port: %w", err)
	}
	m := &mapping{
		outside: netip.AddrPortFrom(ip, outside),
		life:    lease,
		remove:  func(ctx context.Context) error { return g.DeletePortMappingCtx(ctx, "", outside, protocol) },
	}
	to, client, _, _, _, err := g.GetSpecificPortMappingEntryCtx(ctx, "", outside, protocol)
	if err == nil && to == port && client == own.String() {
		return m, nil
	}
	if err == nil {
		// Not ours to remove.
		return nil, fmt.Errorf("it maps the port to %.40q port %d instead of %s port %d", client, to, own, port)
	}
	remove, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	_ = m.remove(remove)
	return nil, fmt.Errorf("look at the mapping: %w", err)
}

// add asks for the own port and, where that is taken, for others; with a lease
// and, where the router knows none, without.
func add(ctx context.Context, g gateway, own netip.Addr, protocol string, port uint16) (uint16, time.Duration, error) {
	outside := port
	var err error
	for range 1 + conflicts {
		for _, lease := range []time.Duration{life, 0} {
			err = g.AddPortMappingCtx(ctx, "", outside, protocol, port, own.String(), true, description, uint32(lease.Seconds()))
			if err == nil {
				return outside, life, nil
			}
			if ctx.Err() != nil {
				return 0, 0, err
			}
		}
		outside = uint16(20000 + rand.N(40000)) // the first is taken
	}
	return 0, 0, err
}

// gatewaysOf returns the services that map ports, all of which speak through
// client.
func gatewaysOf(root *goupnp.RootDevice, at *url.URL, client *http.Client) []gateway {
	var out []gateway
	// An error means that there is no such service.
	two, _ := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, at)
	for _, c := range two {
		c.SOAPClient.HTTPClient = *client
		out = append(out, c)
	}
	one, _ := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, at)
	for _, c := range one {
		c.SOAPClient.HTTPClient = *client
		out = append(out, c)
	}
	ppp, _ := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, at)
	for _, c := range ppp {
		c.SOAPClient.HTTPClient = *client
		out = append(out, c)
	}
	return out
}

func describe(ctx context.Context, client *http.Client, at *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	d := xml.NewDecoder(resp.Body)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	root := new(goupnp.RootDevice)
	if err := d.Decode(root); err != nil {
		return nil, err
	}
	root.SetURLBase(at) // whatever base it names: no other host is asked
	return root, nil
}

// routerClient speaks HTTP to one host, follows no redirects, and reads no more
// than maxRouterBody.
func routerClient(host netip.Addr) *http.Client {
	return &http.Client{
		Timeout:   routerLimit,
		Transport: &boundedTransport{host: host.String(), to: &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the router redirects, which is not followed")
		},
	}
}

type boundedTransport struct {
	host string
	to   *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Hostname() != t.host {
		return nil, fmt.Errorf("the router sends us to another host, %.80q", req.URL.Host)
	}
	resp, err := t.to.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxRouterBody}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the router says more than %d bytes", maxRouterBody)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
