package main

import (
	"context"
	"path/filepath"

	"github.com/adrg/xdg"
	"github.com/spf13/cobra"

	"peerlink/dht"
)

// newNode is the command that runs a bootstrap node.
func newNode(o *options) *cobra.Command {
	var listen []string
	data := filepath.Join(xdg.DataHome, "peerlink", "node")
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node of the DHT, for others to bootstrap from",
		Long:  "Run a node of a private Kademlia network. It prints its multiaddresses, one a line:\ngive one to others as --bootstrap. Its key is kept, so they stay the same.",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := dht.Start(cmd.Context(), dht.Config{
				Mode: dht.Server, Listen: listen, DataDir: data,
				Bootstrap: o.bootstrapNodes(), Logger: o.logger(cmd.ErrOrStderr()),
			})
			if err != nil {
				return err
			}
			defer n.Close()
			p := &printer{out: cmd.OutOrStdout()}
			if o.json {
				p.json(map[string]any{"step": "ready", "ok": true, "addrs": n.Addrs()})
			} else {
				for _, a := range n.Addrs() {
					p.print(a)
				}
			}
			<-cmd.Context().Done()
			return context.Cause(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&listen, "listen", []string{"/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"}, "multiaddresses to listen on")
	cmd.Flags().StringVar(&data, "data", data, "folder for the node's key")
	return cmd
}
