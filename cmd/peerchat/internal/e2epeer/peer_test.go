// Package e2epeer is the other end of the browser's measurements: a device that takes
// calls through a switchboard and does what the channels it is asked for say.
//
//	bench://up              reads all, then answers with the number of bytes
//	bench://down/N          writes N bytes
//	message://1, files://   as peerchat has them
//	loose://                sends each datagram back
//
// With -bare there are no channels: see serveBare. With -board it is a hostile
// switchboard, and with -relay a STUN and TURN server, instead of a device.
//
// It prints JSON lines, as “peerchat --json listen” does. Lines of its input
// are commands: “say TEXT”, “send DEVICE FILE”, “call DEVICE TEXT”, “go on”.
package e2epeer

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/identity"
	"peerlink/webrtc"
	"peerlink/webrtc/switchboard"
)

type peer struct {
	m     *peerlink.ConnectionManager
	talk  *chat.Service
	rec   *parcel.Receiver
	reply string
	most  int64
	pause int64         // bytes of a channel with files after which it waits for goon
	goon  chan struct{} // closed by “go on”

	mu    sync.Mutex
	heard map[identity.DeviceID]struct{} // and called: “say” is for all of them
}

// TestMain is the program. Where go test runs it there is nothing to test.
func TestMain(m *testing.M) {
	if slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.") }) {
		os.Exit(m.Run())
	}
	signal := flag.String("signal", "", "address of the switchboard")
	into := flag.String("into", ".", "folder for received files")
	reply := flag.String("reply", "", "answer to each message")
	name := flag.String("name", "peer", "name of the device")
	loopback := flag.Bool("loopback", true, "use loopback addresses alone")
	most := flag.Int64("most", 0, "size of a file that is taken at most, in bytes (default: any)")
	bare := flag.Bool("bare", false, "measure the stream of the data channel itself: no channels")
	pause := flag.Int64("pause", 0, "of a file, read so many bytes and the rest after “go on” (default: all)")
	board := flag.Bool("board", false, "be a hostile switchboard")
	relay := flag.Bool("relay", false, "be a STUN and TURN server")
	flag.Parse()
	ctx := context.Background()
	me, err := identity.Generate(*name)
	switch {
	case err != nil:
	case *board:
		err = serveBoard(ctx, me)
	case *relay:
		err = serveRelay(ctx, me)
	default:
		p := &peer{reply: *reply, most: *most, pause: *pause, goon: make(chan struct{}), heard: map[identity.DeviceID]struct{}{}}
		err = p.run(ctx, me, *signal, *into, *loopback, *bare)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func (p *peer) run(ctx context.Context, me *identity.Identity, signal, into string, loopback, bare bool) error {
	line, err := switchboard.Dial(ctx, signal, switchboard.Config{Identity: me})
	if err != nil {
		return err
	}
	t, err := webrtc.New(webrtc.Config{Identity: me, Signaller: line, Loopback: loopback})
	if err != nil {
		return err
	}
	if bare {
		return serveBare(ctx, t, me.DeviceID())
	}
	m, err := peerlink.New(peerlink.Config{Identity: me, Dialers: []peerlink.Dialer{t}, Listeners: []peerlink.Listener{t}})
	if err != nil {
		return err
	}
	p.m = m
	if err := p.open(ctx, into); err != nil {
		return err
	}
	for pattern, handle := range map[string]func(net.Conn, string) error{parcel.Scheme + "*": p.files, "bench://*": p.bench, "loose://*": loose} {
		l, err := m.Listen(pattern)
		if err != nil {
			return err
		}
		go p.serve(l, handle)
	}
	report(map[string]any{"step": "ready", "ok": true, "device": me.DeviceID()})
	return p.commands(ctx)
}

var reporting sync.Mutex

func report(v map[string]any) {
	reporting.Lock()
	defer reporting.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		os.Exit(1) // nobody listens
	}
}

func (p *peer) serve(l net.Listener, handle func(net.Conn, string) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from, _ := peerlink.PeerOf(c)
		uri := ""
		if u, ok := c.(interface{ URI() string }); ok {
			uri = u.URI()
		}
		go func() {
			defer c.Close()
			if err := handle(c, uri); err != nil {
				report(map[string]any{"step": "failed", "uri": uri, "from": from.Device, "error": err.Error()})
			}
		}()
	}
}

// open begins to take messages and files, which go into a folder.
func (p *peer) open(ctx context.Context, into string) error {
	folder, err := inbox.Open(into)
	if err != nil {
		return err
	}
	p.rec = parcel.NewReceiver(parcel.Config{Folder: folder, MaxBytes: p.most})
	store, err := chat.Open(filepath.Join(into, ".history.db"))
	if err != nil {
		return err
	}
	if p.talk, err = chat.New(chat.Config{Store: store, Net: p.m}); err != nil {
		return err
	}
	go p.chat(ctx)
	go func() {
		for e := range p.m.Events(ctx) {
			if e.Kind == peerlink.LinkDown {
				report(map[string]any{"step": "lost", "from": e.Peer.Device})
			}
		}
	}()
	return nil
}

// chat tells of messages and answers them.
func (p *peer) chat(ctx context.Context) {
	for m := range p.talk.Events(ctx) {
		if m.Mine {
			continue
		}
		from := m.Peer
		p.know(from)
		report(map[string]any{"step": "chat", "ok": true, "from": from, "text": m.Text})
		if p.reply != "" {
			p.say(from, p.reply)
		}
	}
}

func (p *peer) know(d identity.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard[d] = struct{}{}
}

func (p *peer) say(to identity.DeviceID, text string) {
	if _, err := p.talk.Send(to, text); err != nil {
		report(map[string]any{"step": "say", "ok": false, "error": err.Error()})
	}
}

func (p *peer) files(c net.Conn, _ string) error {
	from, _ := peerlink.PeerOf(c)
	if p.pause > 0 {
		c = &paused{Conn: c, left: p.pause, goon: p.goon}
	}
	_, err := p.rec.Serve(context.Background(), c, parcel.Peer{ID: from.Device.String()}, func(e parcel.Event) {
		if e.Kind == parcel.Kept {
			report(map[string]any{"step": "file", "ok": true, "from": from.Device, "name": e.Name, "bytes": e.Size, "blake3": fmt.Sprintf("%x", e.Sum)})
		}
	})
	return err
}

// paused reads a part, and the rest when it may.
type paused struct {
	net.Conn
	left int64
	goon chan struct{}
}

func (c *paused) Read(b []byte) (int, error) {
	if c.left <= 0 {
		report(map[string]any{"step": "paused"})
		<-c.goon
		c.left = 1 << 62
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// loose sends datagrams back until the channel ends.
func loose(c net.Conn, _ string) error {
	s, ok := c.(interface {
		MaxDatagram() int
		SendUnreliable(p []byte) error
	})
	if !ok {
		return fmt.Errorf("%T has no datagrams", c)
	}
	longest := 0
	defer func() { report(map[string]any{"step": "loose", "most": s.MaxDatagram(), "longest": longest}) }()
	for b := make([]byte, 2048); ; {
		n, err := c.Read(b)
		if err != nil {
			return nil //nolint:nilerr // the page is done
		}
		longest = max(longest, n)
		_ = s.SendUnreliable(b[:n]) // what is dropped is said again
	}
}

func (p *peer) bench(c net.Conn, uri string) error {
	down, ok := strings.CutPrefix(uri, "bench://down/")
	if !ok {
		n, err := io.Copy(io.Discard, c)
		if err == nil {
			_, err = fmt.Fprintln(c, n)
		}
		return err
	}
	left, err := strconv.Atoi(down)
	if err != nil {
		return err
	}
	for buf := make([]byte, 256<<10); left > 0 && err == nil; left -= min(left, len(buf)) {
		_, err = c.Write(buf[:min(left, len(buf))])
	}
	return err
}

// serveBare takes streams whose first 9 bytes say 'u' (read so many bytes, then
// answer with one) or 'd' (write so many bytes), and a number.
func serveBare(ctx context.Context, t *webrtc.Transport, me identity.DeviceID) error {
	report(map[string]any{"step": "ready", "ok": true, "device": me})
	for {
		c, _, err := t.Accept(ctx)
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var head [9]byte
			_, err := io.ReadFull(c, head[:])
			n := int64(binary.BigEndian.Uint64(head[1:]))
			if err == nil && head[0] == 'u' {
				if _, err = io.CopyN(io.Discard, c, n); err == nil {
					_, err = c.Write([]byte{1})
				}
			} else if err == nil {
				_, err = io.CopyN(c, zeros{}, n)
			}
			if err == nil {
				_, err = c.Read(head[:1]) // until the page closes
			}
			report(map[string]any{"step": "bare", "end": fmt.Sprint(err)})
		}()
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// commands obeys the lines of the input until it ends.
func (p *peer) commands(ctx context.Context) error {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, rest, _ := strings.Cut(in.Text(), " ")
		if what == "say" {
			p.mu.Lock()
			for to := range p.heard {
				p.say(to, rest)
			}
			p.mu.Unlock()
			continue
		}
		if what == "go" {
			close(p.goon)
			continue
		}
		to, arg, _ := strings.Cut(rest, " ")
		device, err := identity.ParseDeviceID(to)
		if err != nil {
			return err
		}
		go func() {
			if err := p.do(ctx, what, device, arg); err != nil {
				report(map[string]any{"step": what, "ok": false, "error": err.Error()})
			}
		}()
	}
	return nil
}

func (p *peer) do(ctx context.Context, what string, device identity.DeviceID, arg string) error {
	dial := func(ctx context.Context, uri string) (net.Conn, error) {
		return p.m.ConnectDevice(ctx, device, uri, peerlink.ConnectOptions{})
	}
	if what == "call" {
		c, err := dial(ctx, chat.URI) // so that it is told if there is no way
		if err != nil {
			return err
		}
		_ = c.Close()
		p.know(device)
		_, err = p.talk.Send(device, arg)
		return err
	}
	_, err := parcel.Send(ctx, parcel.SendConfig{Open: dial, Watch: func(e parcel.Event) {
		if e.Kind == parcel.Kept {
			report(map[string]any{"step": "sent", "ok": true, "blake3": fmt.Sprintf("%x", e.Sum)})
		}
	}}, arg)
	return err
}
