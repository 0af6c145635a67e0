package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// router is a small UPnP gateway.
type router struct {
	*httptest.Server
	outside string                                            // what it calls its address
	answer  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered otherwise
	client  func(internal string) string                      // whom it says a port leads to
	mu      sync.Mutex
	ports   map[string]string // "UDP 4100" → internal address and port
}

const descriptionXML = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service></serviceList></device></deviceList></device></deviceList></device></root>`

func newRouter(t *testing.T) *router {
	r := &router{outside: "198.51.100.7", ports: map[string]string{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

var field = regexp.MustCompile(`<(New\w+)>([^<]*)<`)

// ServeHTTP implements http.Handler.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.answer != nil && r.answer(w, req) {
		return
	}
	if req.URL.Path != "/control" {
		fmt.Fprint(w, descriptionXML)
		return
	}
	body := make([]byte, 4096)
	n, _ := req.Body.Read(body)
	in := map[string]string{}
	for _, m := range field.FindAllStringSubmatch(string(body[:n]), -1) {
		in[m[1]] = m[2]
	}
	_, action, _ := strings.Cut(strings.Trim(req.Header.Get("SOAPACTION"), `"`), "#")
	key := in["NewProtocol"] + " " + in["NewExternalPort"]
	out := ""
	r.mu.Lock()
	defer r.mu.Unlock()
	switch action {
	case "GetExternalIPAddress":
		out = "<NewExternalIPAddress>" + r.outside + "</NewExternalIPAddress>"
	case "AddPortMapping":
		if _, taken := r.ports[key]; taken && r.ports[key] != in["NewInternalClient"]+" "+in["NewInternalPort"] {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring></s:Fault></s:Body></s:Envelope>`)
			return
		}
		r.ports[key] = in["NewInternalClient"] + " " + in["NewInternalPort"]
	case "DeletePortMapping":
		delete(r.ports, key)
	case "GetSpecificPortMappingEntry":
		client, port, _ := strings.Cut(r.ports[key], " ")
		if r.client != nil {
			client = r.client(client)
		}
		out = "<NewInternalPort>" + port + "</NewInternalPort><NewInternalClient>" + client + "</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>x</NewPortMappingDescription><NewLeaseDuration>3600</NewLeaseDuration>"
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">%s</u:%sResponse></s:Body></s:Envelope>`, action, out, action)
}

func (r *router) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ports)
}

// config finds the router without looking for it.
func (r *router) config() Config {
	return Config{
		loopback: true,
		gateways: func() []netip.Addr { return nil },
		locate:   func(context.Context) ([]string, error) { return []string{r.URL + "/desc.xml"}, nil },
	}
}

type told struct {
	addr netip.AddrPort
	err  error
}

// keep runs Keep until the returned function is called.
func keep(t *testing.T, cfg Config, protocol string, port uint16) (<-chan told, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	c, done := make(chan told, 16), make(chan struct{})
	go func() {
		defer close(done)
		Keep(ctx, cfg, protocol, port, func(a netip.AddrPort, err error) { c <- told{a, err} })
	}()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return c, stop
}

func next(t *testing.T, c <-chan told) told {
	t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(15 * time.Second):
		t.Fatal("nothing was told")
		return told{}
	}
}

// fault: F6
func TestARouterMapsThePortAndItIsGivenBack(t *testing.T) {
	r := newRouter(t)
	c, stop := keep(t, r.config(), "udp", 4100)
	x := next(t, c)
	if want := netip.MustParseAddrPort("198.51.100.7:4100"); x.addr != want || x.err != nil {
		t.Fatalf("told %v, %v", x.addr, x.err)
	}
	if r.ports["UDP 4100"] != "127.0.0.1 4100" {
		t.Errorf("mapped: %v", r.ports)
	}
	stop()
	if r.open() != 0 {
		t.Errorf("left behind: %v", r.ports)
	}
}

func TestAnotherPortIsTakenWhereTheOwnOneIsInUse(t *testing.T) {
	r := newRouter(t)
	r.ports["TCP 4100"] = "10.0.0.9 4100"
	c, stop := keep(t, r.config(), "tcp", 4100)
	x := next(t, c)
	if x.err != nil || x.addr.Port() == 4100 {
		t.Fatalf("told %v, %v", x.addr, x.err)
	}
	stop()
	if r.open() != 1 || r.ports["TCP 4100"] == "" {
		t.Errorf("left: %v", r.ports)
	}
}

// A change of the network asks again, here a router that has come to itself.
func TestAChangeOfTheNetworkAsksAgain(t *testing.T) {
	r := newRouter(t)
	r.outside = "192.168.0.1"
	changed := make(chan struct{})
	cfg := r.config()
	cfg.Changed = func() <-chan struct{} { return changed }
	c, _ := keep(t, cfg, "udp", 4100)
	if x := next(t, c); x.err == nil {
		t.Fatalf("told %v", x.addr)
	}
	r.mu.Lock()
	r.outside = "198.51.100.7"
	r.mu.Unlock()
	old := changed
	changed = make(chan struct{})
	close(old)
	if x := next(t, c); x.err != nil {
		t.Fatal(x.err)
	}
}

// fault: F6
func TestALyingRouterGivesNothing(t *testing.T) {
	filler := strings.Repeat("<x></x>", 10<<20/7)
	huge := `<root xmlns="urn:schemas-upnp-org:device-1-0">` + filler
	hugeAnswer := `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` + filler
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	defer elsewhere.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(elsewhere.URL, "http://"), ":")
	other := "http://127.0.0.2:" + port
	for name, c := range map[string]struct {
		set  func(*router)
		want string
	}{
		"private address": {func(r *router) { r.outside = "192.168.1.1" }, "no public address"},
		"carrier's NAT":   {func(r *router) { r.outside = "100.64.3.4" }, "no public address"},
		"loopback":        {func(r *router) { r.outside = "127.0.0.1" }, "no public address"},
		"multicast":       {func(r *router) { r.outside = "224.0.0.1" }, "no public address"},
		"nonsense":        {func(r *router) { r.outside = "your house" }, "its address is"},
		"IPv6":            {func(r *router) { r.outside = "2001:db8::1" }, "no address"},
		"maps to another": {func(r *router) { r.client = func(string) string { return "10.9.9.9" } }, "instead of"},
		"10 MB description": {func(r *router) {
			r.answer = func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, huge); return true }
		}, "more than"},
		"10 MB answer": {func(r *router) {
			r.answer = func(w http.ResponseWriter, q *http.Request) bool {
				if q.Method == http.MethodPost {
					fmt.Fprint(w, hugeAnswer)
				}
				return q.Method == http.MethodPost
			}
		}, "more than"},
		"redirect": {func(r *router) {
			r.answer = func(w http.ResponseWriter, q *http.Request) bool {
				http.Redirect(w, q, other, http.StatusFound)
				return true
			}
		}, "redirects"},
		"control elsewhere": {func(r *router) {
			r.answer = func(w http.ResponseWriter, q *http.Request) bool {
				fmt.Fprint(w, strings.Replace(descriptionXML, "/control", other+"/control", 1))
				return true
			}
		}, "another host"},
		"no router": {func(r *router) {
			r.answer = func(w http.ResponseWriter, q *http.Request) bool { fmt.Fprint(w, "<root/>"); return true }
		}, "UPnP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t)
			c.set(r)
			cx, stop := keep(t, r.config(), "udp", 4100)
			x := next(t, cx)
			if x.err == nil || !strings.Contains(x.err.Error(), c.want) {
				t.Errorf("told %v, %v; want %q", x.addr, x.err, c.want)
			}
			stop()
		})
	}
}

// fault: F6
func TestARouterThatNeverAnswersIsGivenUp(t *testing.T) {
	r := newRouter(t)
	release := make(chan struct{})
	r.answer = func(http.ResponseWriter, *http.Request) bool { <-release; return true }
	start := time.Now()
	c, stop := keep(t, r.config(), "udp", 4100)
	x := next(t, c)
	if d := time.Since(start); x.err == nil || d > routerLimit+2*time.Second {
		t.Errorf("after %v: %v", d, x.err)
	}
	close(release)
	stop()
}

// A location elsewhere is not asked: it would make us a tool against others.
// fault: F6, E8
func TestOnlyTheLocalNetworkIsAsked(t *testing.T) {
	for _, l := range []string{"http://198.51.100.7/d.xml", "https://192.168.0.1/", "http://router.example/", "file:///etc/passwd", "http://[fe80::1]/", "::"} {
		if _, err := (Config{}).mapByUPnP(t.Context(), l, "udp", 1); err == nil || !strings.Contains(err.Error(), "location") {
			t.Errorf("%s: %v", l, err)
		}
	}
}

// pmpRouter answers NAT-PMP on an address of loopback.
func pmpRouter(t *testing.T, at string, ext [4]byte, mapped func(lifetime uint32) (internal, external uint16)) *sync.Map {
	conn, err := net.ListenPacket("udp4", at+":5351")
	if err != nil {
		t.Skip(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	var ports sync.Map
	go func() {
		defer close(done)
		b := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			switch n {
			case 2:
				conn.WriteTo(append([]byte{0, 128, 0, 0, 0, 0, 0, 1}, ext[:]...), from)
			case 12:
				life := binary.BigEndian.Uint32(b[8:])
				internal, external := mapped(life)
				if life == 0 {
					ports.Delete(internal)
				} else {
					ports.Store(internal, external)
				}
				out := []byte{0, b[1] + 128, 0, 0, 0, 0, 0, 1}
				out = binary.BigEndian.AppendUint16(out, internal)
				out = binary.BigEndian.AppendUint16(out, external)
				conn.WriteTo(binary.BigEndian.AppendUint32(out, life), from)
			}
		}
	}()
	return &ports
}

// fault: F6
func TestNATPMPMapsAndIsGivenBackAndLiesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		at       string
		ext      [4]byte
		internal uint16
		ok       bool
	}{
		"honest":          {"127.77.0.1", [4]byte{198, 51, 100, 7}, 4100, true},
		"private address": {"127.77.0.2", [4]byte{10, 0, 0, 1}, 4100, false},
		"another port":    {"127.77.0.3", [4]byte{198, 51, 100, 7}, 22, false},
	} {
		t.Run(name, func(t *testing.T) {
			ports := pmpRouter(t, c.at, c.ext, func(uint32) (uint16, uint16) { return c.internal, 5000 })
			cfg := Config{loopback: true, gateways: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr(c.at)} }, locate: func(context.Context) ([]string, error) { return nil, errors.New("no UPnP") }}
			cx, stop := keep(t, cfg, "udp", 4100)
			x := next(t, cx)
			if (x.err == nil) != c.ok || c.ok && x.addr != netip.MustParseAddrPort("198.51.100.7:5000") {
				t.Errorf("told %v, %v", x.addr, x.err)
			}
			stop()
			ports.Range(func(k, _ any) bool { t.Errorf("port %v is left behind", k); return true })
		})
	}
}

func TestDefaultRoutesAreRead(t *testing.T) {
	number := make([]byte, 4)
	binary.BigEndian.PutUint32(number, binary.NativeEndian.Uint32([]byte{10, 1, 2, 3}))
	table := fmt.Sprintf("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\neth0\t00000000\t%X\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\ngarbage\n", number)
	if got := fmt.Sprint(parseRoutes(strings.NewReader(table))); got != "[10.1.2.3]" {
		t.Errorf("gateways %s", got)
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add("eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range parseRoutes(strings.NewReader(s)) {
			if !a.Is4() || a.IsUnspecified() {
				t.Errorf("gateway %s of %q", a, s)
			}
		}
	})
}
