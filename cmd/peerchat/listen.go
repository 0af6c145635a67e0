package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/identity"
)

// newListen is the command that makes this device reachable.
func newListen(o *options) *cobra.Command {
	var reply string
	f := takeFlags{into: "."}
	cmd := &cobra.Command{
		Use:     "listen",
		Short:   "Be reachable: take chats and files",
		Example: "  peerchat listen --into ~/Downloads\n  peerchat listen --json --no-daemon --tcp :7000",
		Long:    "Be reachable under this account's device id, which is printed. Chats appear on the\nterminal, and lines typed here go to everybody who is in one; files go into a folder.",
		Args:    usageArgs(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listen(cmd, o, f, reply)
		},
	}
	cmd.Flags().StringVar(&f.into, "into", ".", "folder for received files")
	f.register(cmd)
	cmd.Flags().StringVar(&reply, "reply", "", "answer each line of a chat with this text")
	return cmd
}

func listen(cmd *cobra.Command, o *options, f takeFlags, reply string) error {
	ctx := cmd.Context()
	if err := f.check(cmd, o, cmd.Flags().Changed("into")); err != nil {
		return err
	}
	acc, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer acc.Close()
	t, err := o.newTaker(cmd, acc, f)
	if err != nil {
		return err
	}
	defer t.close()
	h := &host{o: o, p: t.p, taker: t, reply: reply, chats: map[net.Conn]identity.Peer{}}
	ended, err := h.serve(ctx, acc)
	if err != nil {
		return err
	}
	st, err := acc.status(ctx)
	if err == nil {
		err = acc.ready(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case o.json && err != nil:
		h.p.json(map[string]any{"step": "ready", "ok": false, "device": st.Self.Device, "error": err.Error()})
	case o.json:
		h.p.json(map[string]any{"step": "ready", "ok": true, "device": st.Self.Device, "tcp": st.Listens})
	default:
		h.p.print(st.Self.Device.String())
		for _, addr := range st.Listens {
			fmt.Fprintf(cmd.ErrOrStderr(), "direct TCP on %s\n", addr)
		}
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "not reachable through the DHT yet: %v\n", err)
		}
	}
	go h.typed(cmd.InOrStdin())
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		return err
	}
}

// host serves those who call this device.
type host struct {
	o     *options
	p     *printer
	taker *taker
	reply string

	mu    sync.Mutex
	chats map[net.Conn]identity.Peer
}

// serve takes chats and files. ended tells why it cannot go on.
func (h *host) serve(ctx context.Context, acc *session) (ended <-chan error, err error) {
	endedc := make(chan error, 1)
	failed := func(err error) {
		select {
		case endedc <- err:
		default: // the first one tells
		}
	}
	l, err := acc.listen(ctx, chatScheme+"*")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed(err)
				return
			}
			peer, _ := peerlink.PeerOf(c)
			go func() {
				defer c.Close()
				h.chat(c, peer)
			}()
		}
	}()
	return endedc, h.taker.serve(ctx, acc, failed)
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
		if h.taker.consent.typed(s) {
			return nil
		}
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
