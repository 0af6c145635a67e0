package account

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"peerlink/identity"
	"peerlink/webrtc/switchboard"
)

// Bounds of a config file. They are far above what a person writes and keep a
// wrong file from becoming a large one in memory.
const (
	maxConfigLen  = 1 << 20
	maxList       = 64   // entries of one list
	maxBoards     = 4    // switchboards: each has a line that is kept
	maxPeers      = 4096 // as many as the TCP dialer remembers
	maxPeerAddrs  = 8    // as many as it remembers of one
	maxConfigText = 512  // bytes of one entry
	networkKeyLen = 32   // bytes
)

// Config are an account's settings, as in config.json: one JSON object whose
// keys are those of the fields' tags, each at most once and spelled exactly.
// The zero value of each field is its default.
type Config struct {
	// Bootstrap are multiaddresses of nodes of the DHT to begin with. None: the
	// device is reached over direct TCP only.
	Bootstrap []string `json:"bootstrap,omitempty"`
	// DHTListen are multiaddresses to serve the DHT on, for a device that is
	// publicly reachable. None: it is a client.
	DHTListen []string `json:"dht_listen,omitempty"`
	// Listen are HOST:PORT to take direct TCP connections on. None: none.
	Listen []string `json:"listen,omitempty"`
	// Peers are the HOST:PORT under which devices take direct TCP connections.
	Peers map[identity.DeviceID][]string `json:"peers,omitempty"`
	// Engines are those of ICE, in order of preference: "tcp", "udp". None: both.
	Engines []string `json:"engines,omitempty"`
	// Servers are STUN and TURN servers for ICE, as URLs (stun:HOST:PORT,
	// turn:HOST:PORT?transport=tcp, turns:HOST:PORT). None: the bootstrap nodes,
	// which hand out credentials themselves. "none" alone: no server at all.
	Servers []string `json:"servers,omitempty"`
	// TURNUser and TURNPassword are the credentials for Servers that relay;
	// TURNSecret is a secret shared with them, in place of a password (coturn:
	// use-auth-secret).
	TURNUser     string `json:"turn_user,omitempty"`
	TURNPassword string `json:"turn_password,omitempty"`
	TURNSecret   string `json:"turn_secret,omitempty"`
	// Switchboards are wss:// addresses over which devices, browsers among them,
	// call each other up for WebRTC. None: none.
	Switchboards []string `json:"switchboard,omitempty"`
	// WebRTC is "on" or "off". "": on if there are Switchboards. With "on" calls
	// go through the DHT too.
	WebRTC string `json:"webrtc,omitempty"`
	// Loopback offers loopback addresses to peers too.
	Loopback bool `json:"loopback,omitempty"`
	// LAN finds devices on the local networks by mDNS, and is found by them,
	// without any bootstrap node.
	LAN bool `json:"lan,omitempty"`
	// LocalDir is the folder through which the devices of one machine find each
	// other and connect without a network, by shared memory or a Unix socket: an
	// absolute path, closed to other users, the same for all of them. "": the
	// user's runtime folder (see localipc). "off": none, and no such carriers.
	LocalDir string `json:"local_dir,omitempty"`
	// NetworkKey is the secret of a private network of DHT nodes: 64 hex digits
	// that all its nodes and devices have. None: the network is open.
	NetworkKey string `json:"network_key,omitempty"`
}

// networkKey returns the bytes of NetworkKey; nil without one. Its error does
// not show it.
func (c Config) networkKey() ([]byte, error) {
	if c.NetworkKey == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(c.NetworkKey)
	if err != nil || len(b) != networkKeyLen {
		return nil, fmt.Errorf("network_key: want %d hex digits", 2*networkKeyLen)
	}
	return b, nil
}

// encode writes what parseConfig reads.
func (c Config) encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	if _, err := parseConfig(b); err != nil {
		return nil, fmt.Errorf("settings that could not be read back: %w", err)
	}
	return b, nil
}

// parseConfig reads a config file. Whatever is not exactly a setting is an
// error with its line: encoding/json alone would take keys in any case, take
// the last of two, and put U+FFFD for what is not UTF-8.
func parseConfig(b []byte) (Config, error) {
	r := &configReader{text: b, dec: json.NewDecoder(bytes.NewReader(b))}
	var c Config
	if err := r.check(); err != nil {
		return Config{}, err
	}
	if err := r.object(&c); err != nil {
		return Config{}, fmt.Errorf("line %d: %w", r.line, err)
	}
	return c, nil
}

// configReader walks over the tokens of a config file and knows the line of
// the one that was read last.
type configReader struct {
	text []byte
	dec  *json.Decoder
	line int
}

// check looks for what makes a file unreadable as a whole.
func (r *configReader) check() error {
	switch {
	case len(r.text) > maxConfigLen:
		return fmt.Errorf("%d bytes, at most %d are taken", len(r.text), maxConfigLen)
	case bytes.HasPrefix(r.text, []byte("\xef\xbb\xbf")):
		return errors.New("line 1: it begins with a byte order mark: save it as UTF-8 without one")
	case bytes.HasPrefix(r.text, []byte("\xff\xfe")) || bytes.HasPrefix(r.text, []byte("\xfe\xff")):
		return errors.New("line 1: it is UTF-16: save it as UTF-8")
	case len(bytes.TrimSpace(r.text)) == 0:
		return errors.New("line 1: it is empty: write {} for the defaults")
	case !utf8.Valid(r.text):
		at := 0
		for s := r.text; ; {
			c, n := utf8.DecodeRune(s)
			if c == utf8.RuneError && n == 1 {
				return fmt.Errorf("line %d: not UTF-8", r.lineAt(at))
			}
			s, at = s[n:], at+n
		}
	}
	return nil
}

func (r *configReader) lineAt(offset int) int {
	return 1 + bytes.Count(r.text[:min(offset, len(r.text))], []byte("\n"))
}

func (r *configReader) object(c *Config) error {
	if err := r.open('{', "settings in braces"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for {
		key, more, err := r.next('}', "a setting's name")
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if seen[key] {
			return fmt.Errorf("%q is set twice", key)
		}
		seen[key] = true
		if err := r.setting(c, key); err != nil {
			return err
		}
	}
	end := int(r.dec.InputOffset())
	rest := bytes.TrimSpace(r.text[end:])
	if len(rest) == 0 {
		return nil
	}
	r.line = r.lineAt(bytes.Index(r.text[end:], rest[:1]) + end)
	return fmt.Errorf("there is more after the settings: %.80q", rest)
}

// checks tell for a setting what a string, or each of a list, must be besides
// checkText. The ones of strings name the setting in their errors.
var checks = map[string]func(string) error{
	"bootstrap": checkMultiaddr, "dht_listen": checkMultiaddr, "listen": checkListen, "engines": checkEngine,
	"servers": checkServer, "switchboard": switchboard.CheckURL, "webrtc": checkWebRTC, "local_dir": checkLocalDir,
	"network_key": func(s string) error { _, err := Config{NetworkKey: s}.networkKey(); return err },
}

// setting reads the value of one key into the field of that name.
func (r *configReader) setting(c *Config, key string) (err error) {
	i := slices.Index(settingNames(), key)
	if i < 0 {
		names := settingNames()
		last := len(names) - 1
		return fmt.Errorf("unknown setting %.80q: there are %s and %s", key, strings.Join(names[:last], ", "), names[last])
	}
	switch to := reflect.ValueOf(c).Elem().Field(i).Addr().Interface().(type) {
	case *string:
		if *to, err = r.word(key); err == nil && checks[key] != nil {
			err = checks[key](*to)
		}
	case *bool:
		*to, err = r.flag(key)
	case *[]string:
		most := maxList
		if to == &c.Switchboards {
			most = maxBoards
		}
		*to, err = r.list(key, most, checks[key])
	case *map[identity.DeviceID][]string:
		*to, err = r.peers(key)
	}
	return err
}

// settingNames returns the keys of a config file, in the order of the fields.
func settingNames() (names []string) {
	for f := range reflect.TypeFor[Config]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func (r *configReader) flag(key string) (bool, error) {
	tok, err := r.token()
	if err != nil {
		return false, err
	}
	v, ok := tok.(bool)
	if !ok {
		return false, fmt.Errorf("%s: want true or false", key)
	}
	return v, nil
}

func (r *configReader) word(key string) (string, error) {
	tok, err := r.token()
	if err != nil {
		return "", err
	}
	v, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("%s: want a string", key)
	}
	if err := checkText(v); err != nil { // not quoted: it may be a secret
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return v, nil
}

func (r *configReader) list(key string, most int, check func(string) error) ([]string, error) {
	if err := r.open('[', key+": a list of strings"); err != nil {
		return nil, err
	}
	var out []string
	for {
		s, more, err := r.next(']', key+": a string")
		if err != nil || !more {
			return out, err
		}
		switch {
		case len(out) == most:
			return nil, fmt.Errorf("%s: more than %d entries", key, most)
		case slices.Contains(out, s):
			return nil, fmt.Errorf("%s: %.80q is there twice", key, s)
		}
		err = checkText(s)
		if err == nil {
			err = check(s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %.80q: %w", key, s, err)
		}
		out = append(out, s)
	}
}

func (r *configReader) peers(key string) (map[identity.DeviceID][]string, error) {
	if err := r.open('{', key+": device ids with lists of addresses, in braces"); err != nil {
		return nil, err
	}
	out := map[identity.DeviceID][]string{}
	for {
		s, more, err := r.next('}', key+": a device id")
		if err != nil || !more {
			return out, err
		}
		id, err := identity.ParseDeviceID(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if _, twice := out[id]; twice {
			return nil, fmt.Errorf("%s: device %s is there twice", key, id)
		}
		if len(out) == maxPeers {
			return nil, fmt.Errorf("%s: more than %d devices", key, maxPeers)
		}
		if out[id], err = r.list(key, maxPeerAddrs, checkHostPort); err != nil {
			return nil, err
		}
	}
}

// open reads the delimiter that begins an object or a list.
func (r *configReader) open(want json.Delim, what string) error {
	tok, err := r.token()
	if err != nil {
		return err
	}
	if tok != want {
		return fmt.Errorf("want %s", what)
	}
	return nil
}

// next reads a string, or the delimiter that ends an object or a list.
func (r *configReader) next(end json.Delim, what string) (s string, more bool, err error) {
	tok, err := r.token()
	if err != nil {
		return "", false, err
	}
	if tok == end {
		return "", false, nil
	}
	s, more = tok.(string)
	if !more {
		return "", false, fmt.Errorf("want %s", what)
	}
	return s, true, nil
}

// token reads the next token. The end of the file in the middle is an error of
// its own, as that is what a half-written file looks like.
func (r *configReader) token() (json.Token, error) {
	at := int(r.dec.InputOffset())
	for at < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[at]) >= 0 {
		at++
	}
	r.line = r.lineAt(at)
	tok, err := r.dec.Token()
	switch {
	case err == nil:
		return tok, nil
	case at >= len(r.text), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the rest of the file is cut off")
	default:
		return nil, fmt.Errorf("not JSON: %w", err)
	}
}

// check finds in options what could not stand in config.json either. A relative
// LocalDir may: it is below the working directory of this process. Start looks at
// what WebRTC needs.
func (o *Options) check() error {
	options := reflect.ValueOf(o).Elem()
	for f := range reflect.TypeFor[Config]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := options.FieldByName(f.Name)
		if !at.IsValid() || checks[key] == nil || slices.Contains([]string{"LocalDir", "WebRTC", "Switchboards"}, f.Name) {
			continue
		}
		var all []string
		switch v := at.Interface().(type) {
		case []string:
			all = v
		case string:
			all = []string{v}
		}
		for k, s := range all {
			err := checks[key](s)
			if err == nil && key == "engines" && slices.Contains(all[:k], s) {
				err = errors.New("it is given twice")
			}
			if err != nil {
				return fmt.Errorf("in Options.%s, number %d: %w", f.Name, k+1, err) // which may be a secret
			}
		}
	}
	return nil
}

// checkMultiaddr looks only for what cannot be one at all; the DHT reads them.
func checkMultiaddr(s string) error {
	if !strings.HasPrefix(s, "/") {
		return errors.New("want a multiaddress, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3…")
	}
	return nil
}

// checkLocalDir takes what means the same folder to each process.
func checkLocalDir(s string) error {
	if s != "" && s != localOff && !filepath.IsAbs(s) {
		return fmt.Errorf(`local_dir: %.80q: want an absolute path, or "off"`, s)
	}
	return nil
}

func checkEngine(s string) error {
	if s != "tcp" && s != "udp" {
		return errors.New(`want "tcp" or "udp"`)
	}
	return nil
}

// checkListen takes what can be listened on: the host may be left out, port 0
// picks one.
func checkListen(s string) error {
	_, _, err := hostPort(s)
	return err
}

func checkHostPort(s string) error {
	host, port, err := hostPort(s)
	switch {
	case err != nil:
		return err
	case host == "":
		return errors.New("the host is missing")
	case port == 0:
		return errors.New("want a port from 1 to 65535")
	}
	return nil
}

func hostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, errors.New("want HOST:PORT")
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, errors.New("want a port from 0 to 65535")
	}
	return host, uint16(n), nil
}

func checkText(s string) error {
	switch {
	case len(s) > maxConfigText:
		return fmt.Errorf("%d bytes, at most %d are taken", len(s), maxConfigText)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }):
		return errors.New("it has unprintable characters")
	}
	return nil
}
