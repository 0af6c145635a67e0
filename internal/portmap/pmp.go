package portmap

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// pmpLimit is how long a router may take: it is the next hop, and is asked again
// after 250 and 750 ms.
const pmpLimit = time.Second

// maxRoutes bounds how much of the routing table is read.
const maxRoutes = 64 << 10

// byPMP asks the default gateways by NAT-PMP (RFC 6886).
func (cfg Config) byPMP(ctx context.Context, protocol string, port uint16) (*mapping, error) {
	find := cfg.gateways
	if find == nil {
		find = defaultGateways
	}
	err := errors.New("NAT-PMP: no gateway is known")
	for _, g := range find() {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var m *mapping
		if m, err = mapByPMP(g, protocol, port); err == nil {
			return m, nil
		}
		err = fmt.Errorf("NAT-PMP with %s: %w", g, err)
	}
	return nil, err
}

// mapByPMP blocks for three times pmpLimit at most: the library knows no
// contexts.
func mapByPMP(gateway netip.Addr, protocol string, port uint16) (*mapping, error) {
	c := natpmp.NewClientWithTimeout(gateway.AsSlice(), pmpLimit)
	ext, err := c.GetExternalAddress()
	if err != nil {
		return nil, err
	}
	// The address first: a mapping that is of no use is not asked for.
	ip := netip.AddrFrom4(ext.ExternalIPAddress)
	if err := checkOutside(netip.AddrPortFrom(ip, port)); err != nil {
		return nil, err
	}
	res, err := c.AddPortMapping(protocol, int(port), int(port), int(life.Seconds()))
	if err != nil {
		return nil, err
	}
	m := &mapping{
		outside: netip.AddrPortFrom(ip, res.MappedExternalPort),
		life:    min(time.Duration(res.PortMappingLifetimeInSeconds)*time.Second, life),
		remove: func(context.Context) error {
			_, err := c.AddPortMapping(protocol, int(port), 0, 0)
			return err
		},
	}
	if err := checkOutside(m.outside); err == nil && res.InternalPort == port && m.life > 0 {
		return m, nil
	}
	_ = m.remove(context.Background())
	return nil, fmt.Errorf("it gave port %d to port %d of this machine for %v, which is not what was asked for", res.MappedExternalPort, res.InternalPort, m.life)
}

// defaultGateways reads the routing table where the system shows it, and
// otherwise guesses the first address of each network, as most routers have.
func defaultGateways() []netip.Addr {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return guessedGateways()
	}
	defer f.Close()
	return parseRoutes(io.LimitReader(f, maxRoutes))
}

// parseRoutes finds the gateways of default routes: interface, destination and
// gateway in the order of the machine's bytes, in hex.
func parseRoutes(r io.Reader) []netip.Addr {
	var out []netip.Addr
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		b, err := hex.DecodeString(f[2])
		if err != nil || len(b) != 4 {
			continue
		}
		// The digits are of the number; its bytes in memory are the address.
		var ip [4]byte
		binary.NativeEndian.PutUint32(ip[:], binary.BigEndian.Uint32(b))
		if a := netip.AddrFrom4(ip); !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

func guessedGateways() []netip.Addr {
	var out []netip.Addr
	for _, a := range (Config{}).privateAddrs() {
		b := a.As4()
		b[3] = 1
		out = append(out, netip.AddrFrom4(b))
	}
	return out
}
