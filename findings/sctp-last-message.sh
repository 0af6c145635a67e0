#!/usr/bin/env bash
# pion/sctp: how long a lost message is away after which nothing else is sent.
#
# The usual guess: a lost packet comes again after about a round trip, which is
# far below a millisecond on loopback. A data channel that sends small messages
# now and then, such as a chat or a game, counts on it.
#
# What happens: nothing that follows tells of the loss, so the sender waits for a
# timer. v1.8.39 (2025, in pion/webrtc v4.1.2) has only the retransmission time-out
# of RFC 9260, 1 s at least, whatever the path. v1.12.0 (in pion/webrtc v4.2.26)
# probes: the message is there after some 0.2 to 0.3 s. Two ends of v1.12.0 also
# send I-DATA (RFC 8260, chunk type 64) instead of DATA (type 0), so a filter or a
# dissector that looks for type 0 sees none.
#
# Seen with Go 1.26.8, linux/amd64, 2026-11-30, over UDP on loopback, one packet
# of data left out; 15 s. Exit 0 while it is so, 77 without Go or modules.
set -eu
command -v go >/dev/null || exit 77
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cat >"$work/main.go" <<'G'
package main

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/pion/logging"
	"github.com/pion/sctp"
)

// lossy leaves out the next packet with data when it is told to.
type lossy struct {
	net.Conn
	drop atomic.Bool
	kind atomic.Int64 // of the last chunk of data
}

func (l *lossy) Write(p []byte) (int, error) {
	if len(p) > 28 && (p[12] == 0 || p[12] == 64) {
		l.kind.Store(int64(p[12]))
		if l.drop.CompareAndSwap(true, false) {
			return len(p), nil
		}
	}
	return l.Conn.Write(p)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// pair returns two connected UDP sockets.
func pair() (net.Conn, net.Conn) {
	at := func() *net.UDPAddr {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check(err)
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr)
	}
	a, b := at(), at()
	ca, err := net.DialUDP("udp4", a, b)
	check(err)
	cb, err := net.DialUDP("udp4", b, a)
	check(err)
	return ca, cb
}

func main() {
	a, b := pair()
	path := &lossy{Conn: a}
	served := make(chan *sctp.Association, 1)
	go func() {
		s, err := sctp.Server(sctp.Config{NetConn: b, LoggerFactory: logging.NewDefaultLoggerFactory()})
		check(err)
		served <- s
	}()
	client, err := sctp.Client(sctp.Config{NetConn: path, LoggerFactory: logging.NewDefaultLoggerFactory()})
	check(err)
	out, err := client.OpenStream(1, sctp.PayloadTypeWebRTCBinary)
	check(err)
	_, err = out.Write([]byte("message"))
	check(err)
	in, err := (<-served).AcceptStream()
	check(err)
	buf := make([]byte, 64)
	for range 20 { // so that both know the round trip
		_, err = in.Read(buf)
		check(err)
		time.Sleep(20 * time.Millisecond)
		_, err = out.Write([]byte("message"))
		check(err)
	}
	_, err = in.Read(buf)
	check(err)
	time.Sleep(500 * time.Millisecond) // everything is acknowledged
	path.drop.Store(true)
	began := time.Now()
	_, err = out.Write([]byte("message"))
	check(err)
	_, err = in.Read(buf)
	check(err)
	fmt.Println(time.Since(began).Milliseconds(), path.kind.Load())
}
G
late() { # version
	mkdir "$work/$1" && cd "$work/$1" && cp ../main.go .
	go mod init example.org/late 2>/dev/null
	go get "github.com/pion/sctp@$1" 2>log && go mod tidy 2>>log && go build -o late . 2>>log || exit 77
	timeout 20 ./late
}
read -r old oldKind <<<"$(late v1.8.39)"
read -r new newKind <<<"$(late v1.12.0)"
echo "a lost last message was $old ms late with v1.8.39 (chunks of type $oldKind), $new ms with v1.12.0 (type $newKind)"
((old >= 950 && new >= 100 && new <= 800 && oldKind == 0 && newKind == 64))
