#!/usr/bin/env bash
# go-libp2p-kad-dht: under which keys a node's datastore has its records.
#
# The usual guess: the name of a record in the datastore is the base32 of its key,
# as it was for years, and a minor release leaves what is on disk as it is. Code
# that wraps the datastore, to count records or to bound them, or that reads an
# old store, goes by it.
#
# What happens: v0.41.0 stores "/v/hello" as /F53C62DFNRWG6, v0.42.2 as
# /v/F53C62DFNRWG6: the record's namespace stands before it. Everything compiles
# and runs; a wrapper that looks for the old form finds nothing, and records that
# an older release stored are not found again.
#
# Seen with go-libp2p-kad-dht v0.41.0 (go-libp2p v0.48.0) and v0.42.2 (go-libp2p
# v0.52.0), Go 1.26.8, linux/amd64, 2026-11-30. Two nodes on loopback; about half
# a minute, most of it the build. Exit 0 while it is so, 77 without Go or modules.
set -eu
command -v go >/dev/null || exit 77
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

names() { # version of kad-dht, of go-libp2p, first argument of kad.New
	mkdir "$work/$1" && cd "$work/$1"
	cat >main.go <<-G
		package main

		import (
			"context"
			"fmt"
			"time"

			ds "github.com/ipfs/go-datastore"
			"github.com/ipfs/go-datastore/query"
			dssync "github.com/ipfs/go-datastore/sync"
			"github.com/libp2p/go-libp2p"
			kad "github.com/libp2p/go-libp2p-kad-dht"
			"github.com/libp2p/go-libp2p/core/peer"
		)

		type anything struct{}

		func (anything) Validate(string, []byte) error        { return nil }
		func (anything) Select(string, [][]byte) (int, error) { return 0, nil }

		func node(ctx context.Context, store ds.Batching) *kad.IpfsDHT {
			h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
			check(err)
			d, err := kad.New($3 h, kad.Mode(kad.ModeServer), kad.ProtocolPrefix("/test"), kad.NamespacedValidator("v", anything{}), kad.Datastore(store))
			check(err)
			return d
		}

		func check(err error) {
			if err != nil {
				panic(err)
			}
		}

		func main() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			store := dssync.MutexWrap(ds.NewMapDatastore())
			keeper, other := node(ctx, store), node(ctx, dssync.MutexWrap(ds.NewMapDatastore()))
			check(other.Host().Connect(ctx, peer.AddrInfo{ID: keeper.PeerID(), Addrs: keeper.Host().Addrs()}))
			for other.RoutingTable().Size() == 0 && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			check(other.PutValue(ctx, "/v/hello", []byte("x")))
			found, err := store.Query(ctx, query.Query{KeysOnly: true})
			check(err)
			all, err := found.Rest()
			check(err)
			for _, e := range all {
				fmt.Println(e.Key)
			}
		}
	G
	go mod init example.org/names 2>/dev/null
	go get "github.com/libp2p/go-libp2p-kad-dht@$1" "github.com/libp2p/go-libp2p@$2" 2>log && go mod tidy 2>>log || exit 77
	timeout 120 go run .
}
old=$(names v0.41.0 v0.48.0 "ctx,")
new=$(names v0.42.2 v0.52.0 "")
echo "the record /v/hello in the datastore: v0.41.0 $old, v0.42.2 $new"
[ "$old" = /F53C62DFNRWG6 ] && [ "$new" = /v/F53C62DFNRWG6 ]
