package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/identity"
)

// guestsOf are what --relay-for says in words.
func guestsOf(t *testing.T, o *options, words ...string) *guests {
	t.Helper()
	g := &guests{o: o, words: words}
	if err := g.check(); err != nil {
		t.Fatal(err)
	}
	return g
}

func stranger(n byte) identity.Peer {
	return identity.Peer{Device: identity.DeviceID{n, 1}, Account: identity.AccountID{n, 2}}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// case: S25
func TestRelayForNamesDevices(t *testing.T) {
	dir := t.TempDir()
	friends, home := filepath.Join(dir, "friends"), filepath.Join(dir, "account")
	writeFile(t, friends, fmt.Sprintf("# friends\n%s # carol\n\n", stranger(3).Account))
	acc, err := account.Create(home, account.Options{})
	if err != nil {
		t.Fatal(err)
	}
	me := acc.Identity().Peer()
	banned := stranger(6)
	for who, d := range map[identity.Subject]identity.Decision{stranger(5).Device: identity.Allowed, banned.Device: identity.Banned} {
		if err := acc.SetTrust(who, d); err != nil {
			t.Fatal(err)
		}
	}
	acc.Close()
	book, err := contacts.Open(filepath.Join(home, daemon.ContactsFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]identity.Peer{"bob": stranger(4), "eve": banned} {
		if err := book.Add(name, p.Device, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	o := &options{account: home}
	own := identity.Peer{Device: identity.DeviceID{9}, Account: me.Account}
	for _, c := range []struct {
		words string
		named []identity.Peer
		only  bool
	}{
		{"all", nil, false},
		{stranger(1).Device.String(), []identity.Peer{stranger(1)}, true},
		{"all," + stranger(1).Account.String(), []identity.Peer{stranger(1)}, false},
		{friends, []identity.Peer{stranger(3)}, true},
		{"all,contacts", []identity.Peer{me, own, stranger(4), stranger(5)}, false},
		{"contacts," + friends, []identity.Peer{me, own, stranger(3), stranger(4), stranger(5)}, true},
	} {
		g := guestsOf(t, o, strings.Split(c.words, ",")...)
		member, err := g.members(stopped(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if g.all == c.only || (member == nil) != (c.named == nil) {
			t.Errorf("%s: for all %v, members %v", c.words, g.all, member != nil)
		}
		if member == nil {
			continue
		}
		var named []identity.Peer
		for _, p := range []identity.Peer{me, own, stranger(1), stranger(2), stranger(3), stranger(4), stranger(5), banned} {
			if member(p) {
				named = append(named, p)
			}
		}
		if fmt.Sprint(named) != fmt.Sprint(c.named) {
			t.Errorf("%s: %v, want %v", c.words, named, c.named)
		}
	}
}

// stopped is a context that has ended: files are read once.
func stopped() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A device that is taken out of a file is named no more, without a restart; a
// file with an error changes nothing.
// case: S25
func TestFilesOfRelayForAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "friends")
	writeFile(t, path, stranger(1).Device.String()+"\n")
	synctest.Test(t, func(t *testing.T) {
		member, err := guestsOf(t, &options{}, path).members(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			text string
			want bool
		}{{"no id\n", true}, {"", false}, {"# again\n" + stranger(1).Device.String(), true}} {
			writeFile(t, path, step.text)
			time.Sleep(2 * guestsEvery)
			synctest.Wait()
			if member(stranger(1)) != step.want {
				t.Errorf("after %q: member %v", step.text, !step.want)
			}
		}
	})
}

func TestRelayForIsReadStrictly(t *testing.T) {
	for _, words := range [][]string{{"everyone"}, {"ab12"}, {""}, {}, {strings.Repeat("0", 64)}} {
		if err := (&guests{words: words}).check(); err == nil {
			t.Errorf("%q is taken", words)
		}
	}
	bad := filepath.Join(t.TempDir(), "friends")
	writeFile(t, bad, "\nbob\n")
	for path, want := range map[string]string{bad: "line 2", bad + ".none": "no such file"} {
		if _, err := guestsOf(t, &options{}, path).load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	empty := filepath.Join(t.TempDir(), "friends")
	writeFile(t, empty, "# nobody yet\n")
	if _, err := guestsOf(t, &options{}, empty).members(stopped(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "names no device") {
		t.Errorf("an empty file: %v", err)
	}
	for rate, want := range map[string]int64{"none": -1, "8MiB": 8 << 20, "500KB": 500_000, "0": 0, "-1": 0, "": 0, "fast": 0, "1EB": 0} {
		if got, err := rateOf(rate); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v; want %d", rate, got, err, want)
		}
	}
}
