//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink"
)

// deadline is within which a contact has to get through whatever happens. It is far
// above what a busy machine needs.
const deadline = 30 * time.Second

// betweenRounds is how long the contact does nothing: what it costs itself is to stay
// below what attacks cost.
const betweenRounds = 100 * time.Millisecond

// act is what an honest contact does and is timed at.
type act struct {
	name string
	do   func(ctx context.Context, w *world, round int) error
}

var acts = []act{
	{"new link and message", visit},
	{"message over a link", sayHello},
	{"file over a link", sendFile},
}

// times is how long each act took.
type times map[string][]time.Duration

// slowest tells how many times longer the act took that became slowest, and which that
// is, by medians.
func (t times) slowest(still times) string {
	var most float64
	var which string
	for name, took := range t {
		if before := median(still[name]); before > 0 && float64(median(took))/float64(before) > most {
			most = float64(median(took)) / float64(before)
			which = fmt.Sprintf("%.1f (%s: %v)", most, name, median(took).Round(time.Millisecond))
		}
	}
	return cmp.Or(which, "–")
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
				t.harmed("a contact's act, %s, failed: %v", a.name, err)
				return out
			}
			out[a.name] = append(out[a.name], time.Since(begin))
		}
		select {
		case <-until:
			return out
		case <-time.After(betweenRounds):
		}
	}
}

// medians says how long the acts took.
func (t times) medians() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		all = append(all, fmt.Sprintf("%s: %v (%d times)", name, median(t[name]).Round(time.Millisecond), len(t[name])))
	}
	return strings.Join(all, "; ")
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
