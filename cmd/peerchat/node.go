package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/adrg/xdg"
	"github.com/spf13/cobra"

	"peerlink/dht"
)

// newNode is the command that runs a bootstrap node.
func newNode(o *options) *cobra.Command {
	var listen []string
	var r reflector
	var signals signalBoard
	var cfg dht.Config
	var keyFile string
	data := filepath.Join(xdg.DataHome, "peerlink", "node")
	cmd := described("node", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return errors.Join(noArgs(cmd, args), checkListens(listen), r.check(cmd.Flags().Changed, listen))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readNetworkKey(keyFile)
			if err != nil {
				return err
			}
			cfg.Mode, cfg.Listen, cfg.DataDir, cfg.NetworkKey = dht.Server, listen, data, key
			cfg.ReachFile = filepath.Join(data, "reach.json")
			cfg.LAN = cfg.LAN && !onlyLoopback(listen)
			cfg.Bootstrap, cfg.Logger = o.bootstrapNodes(), o.logger(cmd.ErrOrStderr())
			n, err := dht.Start(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer n.Close()
			s, err := r.start(cmd.Context(), listen, data, o.logger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			if s != nil {
				defer s.Close()
				r.tell(cmd.ErrOrStderr(), s.Addr())
			}
			ctx, fail := context.WithCancelCause(cmd.Context())
			defer fail(nil)
			b, err := signals.start(ctx, o.logger(cmd.ErrOrStderr()), fail)
			if err != nil {
				return err
			}
			defer b.close()
			o.printNode(cmd, n, b)
			<-ctx.Done()
			return context.Cause(ctx)
		},
	})
	cmd.Flags().StringSliceVar(&listen, "listen", []string{"/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"}, "multiaddresses to listen on")
	cmd.Flags().StringVar(&data, "data", data, "folder for the node's key and what it stores")
	cmd.Flags().BoolVar(&cfg.LAN, "lan", true, "be found on the local network by mDNS (never if --listen has loopback addresses only)")
	cmd.Flags().IntVar(&cfg.MaxListeners, "max-listeners", 2048, "listening streams of devices at once, about 8 a device in the whole network")
	cmd.Flags().StringVar(&keyFile, "network-key-file", "", "file with the 64 hex digits of a private network's key, mode 0600 (default: the network is open)")
	r.register(cmd.Flags(), o)
	signals.register(cmd.Flags())
	return cmd
}

// checkListens finds out what cannot be an address to listen on. Kinds other than
// those of the help are left to the node.
func checkListens(all []string) error {
	for _, l := range all {
		p := strings.Split(l, "/")
		good := len(p) > 2 && p[0] == ""
		if good && (p[1] == "ip4" || p[1] == "ip6") {
			ip, err := netip.ParseAddr(p[2])
			good = len(p) == 5 && err == nil && ip.Is4() == (p[1] == "ip4") && p[3] == "tcp" && isPort(p[4])
		}
		if !good {
			return fmt.Errorf("--listen %.200q: want a multiaddress such as /ip4/0.0.0.0/tcp/4001 or /ip6/::/tcp/4001", l)
		}
	}
	return nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// printNode tells where a node is found.
func (o *options) printNode(cmd *cobra.Command, n *dht.Node, b *board) {
	p := printerOf(cmd)
	if o.json {
		ready := map[string]any{"step": "ready", "ok": true, "addrs": n.Addrs()}
		if b != nil {
			ready["signal"] = b.url
		}
		p.json(ready)
		return
	}
	if b != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "switchboard on %s\n", b.url)
	}
	for _, a := range n.Addrs() {
		p.print(a)
	}
}

// readNetworkKey reads a private network's key; nil without a file. Its errors do
// not show the key.
func readNetworkKey(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("--network-key-file: %w", err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("--network-key-file: others can read %s (mode %04o): chmod 600 it", path, st.Mode().Perm())
	}
	if st.Size() > 1<<10 {
		return nil, fmt.Errorf("--network-key-file: %s has %d bytes, want 64 hex digits", path, st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--network-key-file: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("--network-key-file: %s does not hold 64 hex digits", path)
	}
	return key, nil
}

// onlyLoopback tells whether a node can be reached from this machine alone.
func onlyLoopback(listen []string) bool {
	for _, l := range listen {
		if !strings.HasPrefix(l, "/ip4/127.") && !strings.HasPrefix(l, "/ip6/::1/") {
			return false
		}
	}
	return len(listen) > 0
}
