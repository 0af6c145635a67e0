package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
	"peerlink/internal/transfer"
)

// newListen is the command that makes this device reachable.
func newListen(o *options) *cobra.Command {
	var into, reply string
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Be reachable: take chats and files",
		Long:  "Be reachable under this account's device id, which is printed. Chats appear on the\nterminal, and lines typed here go to everybody who is in one; files go into a folder.",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listen(cmd, o, into, reply)
		},
	}
	cmd.Flags().StringVar(&into, "into", ".", "folder for received files")
	cmd.Flags().StringVar(&reply, "reply", "", "answer each line of a chat with this text")
	return cmd
}

func listen(cmd *cobra.Command, o *options, into, reply string) error {
	ctx := cmd.Context()
	folder, err := openFolder(into)
	if err != nil {
		return err
	}
	defer folder.Close()
	acc, err := o.start(cmd)
	if err != nil {
		return err
	}
	defer acc.Close()
	h := &host{o: o, p: &printer{out: cmd.OutOrStdout()}, folder: folder, reply: reply, chats: map[net.Conn]identity.Peer{}}
	if err := h.serve(acc); err != nil {
		return err
	}
	err = awaitReady(ctx, acc)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case o.json && err != nil:
		h.p.json(map[string]any{"step": "ready", "ok": false, "device": acc.Identity().DeviceID(), "error": err.Error()})
	case o.json:
		h.p.json(map[string]any{"step": "ready", "ok": true, "device": acc.Identity().DeviceID(), "tcp": acc.Addrs()})
	default:
		h.p.print(acc.Identity().DeviceID().String())
		for _, addr := range acc.Addrs() {
			fmt.Fprintf(cmd.ErrOrStderr(), "direct TCP on %s\n", addr)
		}
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "not reachable through the DHT yet: %v\n", err)
		}
	}
	go h.typed(cmd.InOrStdin())
	<-ctx.Done()
	return context.Cause(ctx)
}

// openFolder opens the folder for received files, making it if need be.
func openFolder(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder for files: %w", err)
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("folder for files: %w", err)
	}
	return r, nil
}

// host serves those who call this device.
type host struct {
	o      *options
	p      *printer
	folder *os.Root
	reply  string

	mu    sync.Mutex
	chats map[net.Conn]identity.Peer
}

// serve takes chats and files until the manager closes.
func (h *host) serve(acc *account.Account) error {
	for pattern, handle := range map[string]func(net.Conn, identity.Peer){"chat://*": h.chat, "file://*": h.file} {
		l, err := acc.ConnectionManager().Listen(pattern)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				peer, _ := peerlink.PeerOf(c)
				go func() {
					defer c.Close()
					handle(c, peer)
				}()
			}
		}()
	}
	return nil
}

// event is a line of --json.
type event struct {
	Step  string            `json:"step"`
	OK    bool              `json:"ok"`
	From  identity.DeviceID `json:"from"`
	Text  string            `json:"text,omitempty"`
	File  *fileReport       `json:"file,omitempty"`
	Error string            `json:"error,omitempty"`
}

// chat shows a peer's lines until it ends.
func (h *host) chat(c net.Conn, peer identity.Peer) {
	h.mu.Lock()
	h.chats[c] = peer
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.chats, c)
		h.mu.Unlock()
	}()
	h.note("chat began", peer, nil)
	err := lines(c, func(s string) error {
		if h.o.json {
			h.p.json(event{Step: "chat", OK: true, From: peer.Device, Text: s})
		} else {
			h.p.print(fmt.Sprintf("%s: %s", who(peer), printable(s)))
		}
		if h.reply == "" {
			return nil
		}
		_, err := io.WriteString(c, h.reply+"\n")
		return err
	})
	h.note("chat ended", peer, err)
}

func who(p identity.Peer) string { return fmt.Sprintf("%s (%s)", printable(p.Name), p.Device.Short()) }

func (h *host) note(what string, peer identity.Peer, err error) {
	switch {
	case h.o.json && err != nil:
		h.p.json(event{Step: what, From: peer.Device, Error: err.Error()})
	case h.o.json:
		h.p.json(event{Step: what, OK: true, From: peer.Device})
	case err != nil:
		h.p.print(fmt.Sprintf("-- %s with %s: %v", what, who(peer), err))
	default:
		h.p.print(fmt.Sprintf("-- %s with %s", what, who(peer)))
	}
}

// typed sends lines of the terminal to all chats.
func (h *host) typed(in io.Reader) {
	_ = lines(in, func(s string) error {
		h.mu.Lock()
		conns := make([]net.Conn, 0, len(h.chats))
		for c := range h.chats {
			conns = append(conns, c)
		}
		h.mu.Unlock()
		for _, c := range conns {
			_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second)) // one who does not read must not stop the others
			_, _ = io.WriteString(c, s+"\n")
		}
		return nil
	})
}

// file receives one file.
func (h *host) file(c net.Conn, peer identity.Peer) {
	f, err := transfer.Receive(c, h.folder, transfer.Limits{}, nil)
	r := &fileReport{Name: f.Name, Bytes: f.Size, SHA256: fmt.Sprintf("%x", f.Sum), OK: err == nil}
	switch {
	case h.o.json && err != nil:
		h.p.json(event{Step: "file", From: peer.Device, File: r, Error: err.Error()})
	case h.o.json:
		h.p.json(event{Step: "file", OK: true, From: peer.Device, File: r})
	case errors.Is(err, transfer.ErrRefused):
		h.p.print(fmt.Sprintf("-- refused a file from %s: %v", who(peer), err))
	case err != nil:
		h.p.print(fmt.Sprintf("-- a file from %s failed: %v", who(peer), err))
	default:
		h.p.print(fmt.Sprintf("-- %s from %s, %s, sha256 %s", f.Name, who(peer), humanize.IBytes(uint64(f.Size)), r.SHA256))
	}
	if err == nil { // the sender closes when it has read the verdict
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Read(make([]byte, 1))
	}
}

// fileReport is what became of a file, in --json.
type fileReport struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	OK     bool   `json:"ok"`
}
