package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/ice"
	"peerlink/internal/relay"
)

const nodeName = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"

func urls(servers []ice.Server) string {
	var out []string
	for _, s := range servers {
		out = append(out, s.URL)
	}
	return strings.Join(out, " ")
}

// Without settings the bootstrap nodes are asked, each once, and not those on
// this machine or of a kind that has no server.
func TestServersAreTheBootstrapNodesUnlessSet(t *testing.T) {
	at := func(addr string) string { return addr + "/p2p/" + nodeName }
	for _, c := range []struct {
		bootstrap, servers []string
		want               string
	}{
		{nil, nil, ""},
		{[]string{at("/ip4/192.0.2.7/tcp/4001"), at("/ip4/192.0.2.7/tcp/4002"), at("/dns4/boot.example/tcp/4001"), at("/ip6/2001:db8::1/tcp/4001")}, nil, "turn:192.0.2.7:3478 turn:boot.example:3478 turn:[2001:db8::1]:3478"},
		{[]string{at("/ip4/127.0.0.1/tcp/4001"), "/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.8/tcp/4001/p2p/QmOther", "garbage", "/p2p/" + nodeName}, nil, ""},
		{[]string{at("/ip4/192.0.2.7/tcp/4001")}, []string{"stun:192.0.2.9"}, "stun:192.0.2.9"},
		{[]string{at("/ip4/192.0.2.7/tcp/4001")}, []string{"none"}, ""},
	} {
		a := &Account{f: &folder{}, opts: Options{Bootstrap: c.bootstrap, Servers: c.servers}}
		got, err := a.servers()
		if err != nil || urls(got) != c.want {
			t.Errorf("%q, %q: %q, %v; want %q", c.bootstrap, c.servers, urls(got), err, c.want)
		}
	}
	a := &Account{f: &folder{}, opts: Options{Servers: []string{"none", "stun:192.0.2.9"}}}
	if _, err := a.servers(); err == nil {
		t.Error("none and another one")
	}
	a = newAccount(&folder{cfg: Options{TURNUser: "u", TURNPassword: "p", TURNSecret: "s"}}, Options{Servers: []string{"turn:192.0.2.9"}})
	if got, _ := a.servers(); got[0].Username != "u" || got[0].Password != "p" || got[0].Secret != "s" {
		t.Errorf("credentials %+v", got[0])
	}
}

func TestServersInTheConfigAreChecked(t *testing.T) {
	for _, bad := range []string{"", "192.0.2.7", "stun:", "turn:h:0", "turn:h?transport=pigeon", "http://h/", "stun:a b", "stun:h:99999"} {
		if _, err := parseConfig(fmt.Appendf(nil, `{"servers": [%q]}`, bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	// A secret that is wrong is not shown.
	// fault: H7
	_, err := parseConfig([]byte("{\"turn_secret\": \"hush\\u0007hush\"}"))
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("error %v", err)
	}
}

// Credentials are kept, asked for anew before they expire, and again when they
// seem not to have worked.
// fault: F3
func TestANodesCredentialsAreKeptAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetched := 0
		var fail error
		p := &pass{fetch: func(context.Context) (relay.Pass, error) {
			fetched++
			return relay.Pass{Username: fmt.Sprint(fetched), Password: "p", Expires: time.Now().Add(12 * time.Hour)}, fail
		}}
		get := func(want string) {
			t.Helper()
			if u, _, err := p.credentials(t.Context()); u != want || err != nil {
				t.Errorf("user %q, %v; want %q", u, err, want)
			}
		}
		get("1")
		get("1") // the other way to the server, at once
		time.Sleep(10 * time.Second)
		get("2") // so the first did not work
		time.Sleep(time.Hour)
		get("2")
		time.Sleep(10*time.Hour + time.Second)
		get("3")
		time.Sleep(12 * time.Hour)
		fail = errors.New("the node is gone")
		if _, _, err := p.credentials(t.Context()); !errors.Is(err, fail) {
			t.Errorf("error %v", err)
		}
		fetched, fail = 0, nil
		if _, _, err := p.credentials(t.Context()); err == nil || fetched > 0 {
			t.Errorf("asked again at once: %v", err)
		}
		time.Sleep(noAnswerFor)
		get("1")
		fail = relay.ErrNoRelay
		time.Sleep(12 * time.Hour)
		_, _, _ = p.credentials(t.Context())
		time.Sleep(noRelayFor - time.Second)
		if _, _, err := p.credentials(t.Context()); !errors.Is(err, fail) || fetched != 2 {
			t.Errorf("asked %d times: %v", fetched, err)
		}
	})
}
