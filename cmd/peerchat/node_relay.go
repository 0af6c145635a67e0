package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"peerlink/cmd/peerchat/internal/turnserver"
)

// reflector are the flags of the STUN and TURN server beside a node.
type reflector struct {
	listen  string
	relay   bool
	address string
	private bool
	rate    string
	rateAll string
	guests  guests
	at      netip.Addr // address, once it was checked
	rates   [2]int64   // rate and rateAll, then
}

// relayFlags do nothing without --relay.
var relayFlags = []string{"relay-for", "relay-rate", "relay-rate-all", "relay-address", "relay-private"}

// noReflector is what switches the server off.
const noReflector = "off"

func (r *reflector) register(f *pflag.FlagSet, o *options) {
	r.guests.o = o
	f.StringVar(&r.listen, "stun", "", "HOST:PORT for STUN and TURN, UDP and TCP; \"off\" for none (default :3478, none if --listen has loopback addresses only)")
	f.BoolVar(&r.relay, "relay", false, "relay for devices that cannot reach each other: costs traffic")
	f.StringVar(&r.address, "relay-address", "", "public IPv4 address of relayed ports (default: the address of --stun, or the interface's)")
	f.BoolVar(&r.private, "relay-private", false, "relay to loopback and private addresses and this machine's own, too, for networks that have no others")
	f.StringSliceVar(&r.guests.words, "relay-for", []string{everybody}, "devices that are relayed: \"all\"; \"contacts\", which are the contacts of --account, its own devices and what it allows; ids of devices and accounts; files such as ./friends with an id a line. Devices that are named have room of their own beside \"all\"")
	f.StringVar(&r.rate, "relay-rate", "8MiB", "bytes a second that are relayed for one device that --relay-for names, or for all others at one IPv4 address or IPv6 /64; \"none\" for no limit")
	f.StringVar(&r.rateAll, "relay-rate-all", "64MiB", "bytes a second that are relayed in all; others than --relay-for names get half of it; \"none\" for no limit")
}

// check finds out what cannot be a place for the server, and what was asked for and
// would not be done.
func (r *reflector) check(given func(flag string) bool, nodeListens []string) error {
	if r.listen != "" && r.listen != noReflector {
		if _, _, err := net.SplitHostPort(r.listen); err != nil {
			return fmt.Errorf("--stun %.200q: want HOST:PORT, :PORT or %s", r.listen, noReflector)
		}
	}
	if r.address != "" {
		ip, err := netip.ParseAddr(r.address)
		if err != nil {
			return fmt.Errorf("--relay-address %.200q: want an IP address", r.address)
		}
		r.at = ip
	}
	for i, flag := range []struct{ name, value string }{{"--relay-rate", r.rate}, {"--relay-rate-all", r.rateAll}} {
		n, err := rateOf(flag.value)
		if err != nil {
			return fmt.Errorf("%s %.200q: %w", flag.name, flag.value, err)
		}
		r.rates[i] = n
	}
	return cmp.Or(r.guests.check(), r.checkRelay(given, nodeListens))
}

// checkRelay compares the flags of the relay with each other. A rate that was not
// given is never above that of all.
func (r *reflector) checkRelay(given func(flag string) bool, nodeListens []string) error {
	each, all := &r.rates[0], r.rates[1]
	switch i := slices.IndexFunc(relayFlags, given); {
	case !r.relay && i >= 0:
		return fmt.Errorf("--%s is for --relay, which was not given", relayFlags[i])
	case !r.relay:
		return nil
	case r.listen == noReflector:
		return errors.New("--relay needs the server that --stun off switches off: choose one")
	case r.listen == "" && onlyLoopback(nodeListens):
		return errors.New("--relay: --listen has loopback addresses only, so there is no server by itself: say where with --stun, such as --stun 127.0.0.1:3478")
	case all < 0 || *each <= all:
		return nil
	case given("relay-rate"):
		return fmt.Errorf("--relay-rate %s is above --relay-rate-all %s: one device cannot have more than all", r.rate, r.rateAll)
	}
	*each = all
	return nil
}

// tell says what runs. That of the relay is a line of its own.
func (r *reflector) tell(w io.Writer, at netip.AddrPort) {
	if !r.relay {
		fmt.Fprintf(w, "STUN on %s\n", at)
		return
	}
	rate := func(n int64) string {
		if n < 0 {
			return "no limit"
		}
		return humanize.IBytes(uint64(n)) + " a second"
	}
	fmt.Fprintf(w, "STUN and TURN on %s\nrelays for %s: %s each, %s in all\n", at, printable(strings.Join(r.guests.words, ", ")), rate(r.rates[0]), rate(r.rates[1]))
}

// rateOf reads a number of bytes a second.
func rateOf(s string) (int64, error) {
	if s == "none" {
		return -1, nil
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n < 1<<10 || n > 1<<40 {
		return 0, errors.New("want the bytes of a second, from 1KB to 1TB such as 500KB or 8MiB, or none for no limit")
	}
	return int64(n), nil
}

// start runs the server; nil where there is to be none. The default port may be
// taken by another node's, then there is none either.
func (r *reflector) start(ctx context.Context, nodeListens []string, data string, log *slog.Logger) (*turnserver.Server, error) {
	at := r.listen
	switch {
	case at == noReflector, at == "" && onlyLoopback(nodeListens):
		return nil, nil
	case at == "":
		at = ":3478"
	}
	cfg := turnserver.Config{Listen: at, Relay: r.relay, Private: r.private, Address: r.at, Logger: log, Rate: r.rates[0], RateAll: r.rates[1]}
	if r.relay {
		member, err := r.guests.members(ctx, log)
		if err != nil {
			return nil, err
		}
		cfg.Member, cfg.MembersOnly = member, !r.guests.all
	}
	// The DHT has just made or checked it.
	seed, err := os.ReadFile(filepath.Join(data, "node.key"))
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the node's key in %s has %d bytes, want %d", data, len(seed), ed25519.SeedSize)
	}
	cfg.Key = ed25519.NewKeyFromSeed(seed)
	s, err := turnserver.Listen(cfg)
	if err != nil && r.listen == "" && !r.relay {
		log.Warn("no STUN server", "err", err)
		return nil, nil
	}
	return s, err
}
