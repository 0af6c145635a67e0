//go:build linux

package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/tlssock"
)

// deadline is within which a contact has to get through whatever happens. It is far
// above what a busy machine needs.
const deadline = 30 * time.Second

// act is what an honest contact does and is timed at.
type act struct {
	name string
	do   func(ctx context.Context, w *world, round int) error
}

var acts = []act{
	{"a new link and a message", visit},
	{"a message by the contact's daemon", sayHello},
	{"a file by the contact's daemon", sendFile},
}

// times is how long each act took.
type times map[string][]time.Duration

// ratio returns how many times longer the act took that became slowest, by medians.
func (t times) ratio(still times) float64 {
	var most float64
	for name := range t {
		if before := median(still[name]); before > 0 {
			most = max(most, float64(median(t[name]))/float64(before))
		}
	}
	return most
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// live has the contact act, at least one round and until the time is over. An act that
// fails is a harm, and ends it: further ones would wait for their deadline, too.
func live(ctx context.Context, w *world, t *tally, until <-chan struct{}) times {
	out := times{}
	for round := 0; ; round++ {
		for _, a := range acts {
			one, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %v", deadline))
			begin := time.Now()
			err := a.do(one, w, round)
			cancel()
			if ctx.Err() != nil {
				return out
			}
			if err != nil {
				t.harmed("%s failed: %v", a.name, err)
				return out
			}
			out[a.name] = append(out[a.name], time.Since(begin))
		}
		select {
		case <-until:
			return out
		default:
		}
	}
}

// medians says how long the acts took.
func (t times) medians() string {
	var s string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		s += fmt.Sprintf("%s: %v (%d times); ", name, median(t[name]).Round(time.Millisecond), len(t[name]))
	}
	return s
}

// visit makes a link over TCP, as a contact, and has a message taken.
func visit(ctx context.Context, w *world, round int) error {
	ms, end, err := w.messages(ctx, w.visitor)
	if err != nil {
		return err
	}
	defer end()
	return say(ms, fmt.Sprintf("hello %d", round))
}

// messages opens a channel for messages to the victim over a link of its own.
func (w *world) messages(ctx context.Context, as *identity.Identity) (ms *peerlink.Messages, end func(), err error) {
	d := &tlssock.Dialer{Config: tlssock.Config{Identity: as, HandshakeTimeout: deadline}}
	conn, _, err := d.DialAddr(ctx, w.tcp, w.victim)
	if err != nil {
		return nil, nil, err
	}
	sock := multiplex.Client(conn, multiplex.Config{})
	stop := context.AfterFunc(ctx, func() { _ = sock.Close() })
	end = func() {
		stop()
		_ = sock.Close()
	}
	ch, err := sock.Open(ctx, "message://1")
	if err != nil {
		end()
		return nil, nil, errors.Join(err, sock.Err())
	}
	return peerlink.NewMessages(ch), end, nil
}

// say has a message stored.
func say(ms *peerlink.Messages, text string) error {
	if err := ms.Send(letter(text)); err != nil {
		return err
	}
	b, err := ms.Receive()
	if err != nil {
		return err
	}
	var receipt struct{ Ack, Why string }
	if err := json.Unmarshal(b, &receipt); err != nil {
		return err
	}
	if receipt.Ack == "" {
		return fmt.Errorf("the message was not taken: %s", receipt.Why)
	}
	return nil
}

// letter is a message as it goes over message://1.
func letter(text string) []byte {
	id := random16()
	b, _ := json.Marshal(map[string]any{"id": hex.EncodeToString(id[:]), "at": time.Now().UnixMilli(), "text": text}) // it cannot fail
	return b
}

func sayHello(ctx context.Context, w *world, round int) error {
	_, err := w.command(ctx, "honest", fmt.Sprintf("hello %d\n", round), "chat", "--plain", "victim")
	return err
}

func sendFile(ctx context.Context, w *world, round int) error {
	path := filepath.Join(w.dir, "photo.jpg")
	id := random16()
	if err := os.WriteFile(path, append(id[:], make([]byte, 256<<10)...), 0o600); err != nil {
		return err
	}
	_, err := w.command(ctx, "honest", "", "send", "victim", path)
	return err
}
