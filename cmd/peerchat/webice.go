package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"peerlink/cmd/peerchat/internal/strictfile"
	"peerlink/ice"
	"peerlink/internal/strictjson"
)

const (
	maxICEFile    = 16 << 10
	maxICEServers = 8 // more slow a browser down, and it says so
	maxICEText    = 256
	// pageTURNLife is that of credentials made from a secret. The page asks anew
	// for each call; a relayed connection renews them while it lasts.
	pageTURNLife = 12 * time.Hour
)

// iceServer is what a browser's RTCPeerConnection takes.
type iceServer struct {
	URLs       string `json:"urls"`
	Username   string `json:"username,omitempty"`
	Credential string `json:"credential,omitempty"`
}

// iceEntry is one server in the file of --ice.
type iceEntry struct {
	iceServer
	// Secret is shared with the TURN server (coturn: use-auth-secret). It stays
	// here: the page gets credentials made from it, which end after 12 h.
	Secret string `json:"secret,omitempty"`
}

// check tells what is wrong with an entry.
func (e iceEntry) check() error {
	for _, text := range []string{e.URLs, e.Username, e.Credential, e.Secret} {
		if len(text) > maxICEText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("a text of more than %d bytes, or with a control character", maxICEText)
		}
	}
	scheme, host, ok := strings.Cut(e.URLs, ":")
	if !ok || host == "" || strings.ContainsAny(host, "/@ ") {
		return fmt.Errorf(`urls: %q is no server, want "stun:HOST:PORT" or "turn:HOST:PORT?transport=udp"`, e.URLs)
	}
	switch scheme {
	case "stun", "stuns":
		if e.Username != "" || e.Credential != "" || e.Secret != "" {
			return fmt.Errorf("%s: a STUN server has no username, credential or secret", e.URLs)
		}
	case "turn", "turns":
		if (e.Username == "" || e.Credential == "") == (e.Secret == "") {
			return fmt.Errorf("%s: a TURN server needs username and credential, or the secret shared with it", e.URLs)
		}
	default:
		return fmt.Errorf(`urls: %q: want stun:, stuns:, turns: or turn: before the host`, e.URLs)
	}
	return nil
}

// server is what the page is told.
func (e iceEntry) server(now time.Time) iceServer {
	s := e.iceServer
	if e.Secret != "" {
		label := s.Username
		s.Username = strconv.FormatInt(now.Add(pageTURNLife).Unix(), 10)
		if label != "" {
			s.Username += ":" + label
		}
		s.Credential = ice.SharedPassword(e.Secret, s.Username)
	}
	return s
}

// readICE reads the file of --ice.
func readICE(path string) ([]iceEntry, error) {
	text, err := strictfile.Read(path, maxICEFile)
	if err == nil && text == nil {
		err = errors.New("there is no such file")
	}
	var all []iceEntry
	if err == nil {
		err = strictjson.Decode(text, maxICEFile, &all)
	}
	if err == nil && len(all) > maxICEServers {
		err = fmt.Errorf("%d servers, at most %d are used", len(all), maxICEServers)
	}
	for i := 0; err == nil && i < len(all); i++ {
		err = all[i].check()
	}
	if err != nil {
		return nil, fmt.Errorf("--ice %s: %w", path, err)
	}
	return all, nil
}

// pageConfig is what the page asks for: config.json.
type pageConfig struct {
	Signal     string      `json:"signal"` // empty: beside the page
	ICEServers []iceServer `json:"iceServers"`
	RelayOnly  bool        `json:"relayOnly,omitempty"`
}

// configuration answers for config.json, each time with the servers of now.
type configuration struct {
	fixed pageConfig
	path  string // of --ice; empty: none
	log   *slog.Logger

	mu   sync.Mutex
	last []iceEntry // what the file had when it was last in order
}

// newConfiguration checks what the page is to be told.
func (s *site) newConfiguration(servers []string, log *slog.Logger) (*configuration, error) {
	c := &configuration{fixed: pageConfig{Signal: s.signal, ICEServers: []iceServer{}, RelayOnly: s.relayOnly}, path: s.ice, log: log}
	for _, server := range servers {
		if strings.HasPrefix(server, "stun:") { // one of TURN needs a password: --ice
			c.fixed.ICEServers = append(c.fixed.ICEServers, iceServer{URLs: server})
		}
	}
	turn := false
	if c.path != "" {
		var err error
		if c.last, err = readICE(c.path); err != nil {
			return nil, usageError{err}
		}
		for _, e := range c.last {
			turn = turn || strings.HasPrefix(e.URLs, "turn")
		}
	}
	if s.relayOnly && !turn {
		return nil, usageError{errors.New("--relay-only: there is no relay: name a TURN server in the file of --ice")}
	}
	return c, nil
}

// now is the configuration with fresh credentials. A file that was broken
// meanwhile leaves the servers of before.
func (c *configuration) now() pageConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != "" {
		if all, err := readICE(c.path); err != nil {
			c.log.Warn("the page's servers stay as they were", "err", err)
		} else {
			c.last = all
		}
	}
	out := c.fixed
	for _, e := range c.last {
		out.ICEServers = append(out.ICEServers[:len(out.ICEServers):len(out.ICEServers)], e.server(time.Now()))
	}
	return out
}

// ServeHTTP tells the page, and no page of another site.
func (c *configuration) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if from := r.Header.Get("Sec-Fetch-Site"); from == "cross-site" || from == "same-site" {
		http.Error(w, "this is for the page that is served here", http.StatusForbidden)
		return
	}
	told, err := json.Marshal(c.now())
	if err != nil {
		http.Error(w, "the configuration cannot be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // it may have credentials
	_, _ = w.Write(told)                        // a browser that has gone
}
