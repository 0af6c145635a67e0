package account

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"peerlink/identity"
	"peerlink/internal/strictjson"
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

// networkKey returns the bytes of a NetworkKey; nil for "". Its error does not
// show it.
func networkKey(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != networkKeyLen {
		return nil, fmt.Errorf("network_key: want %d hex digits", 2*networkKeyLen)
	}
	return b, nil
}

// settings yields the key of each setting and its field of Options.
func settings() iter.Seq2[string, reflect.StructField] {
	return func(yield func(string, reflect.StructField) bool) {
		for f := range reflect.TypeFor[Options]().Fields() {
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "-" && !yield(key, f) {
				return
			}
		}
	}
}

// parseConfig reads a config file. Whatever is not exactly a setting is an error
// with its line.
func parseConfig(text []byte) (Options, error) {
	var c Options
	// Half a surrogate is taken for U+FFFD, which checkText refuses.
	err := strictjson.Decode(text, maxConfigLen, &c, jsontext.AllowInvalidUTF8(true), json.WithUnmarshalers(json.UnmarshalFromFunc(readSetting)))
	if e, ok := errors.AsType[*strictjson.Error](err); ok {
		e.Err = explain(e.Err)
		return Options{}, e
	}
	return c, nil
}

// explain says of an error what the setting is about.
func explain(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && e.Err == jsontext.ErrDuplicateName {
		if key, entry, nested := strings.Cut(strings.TrimPrefix(string(e.JSONPointer), "/"), "/"); nested {
			return fmt.Errorf("%s: device %s is there twice", key, strings.ToLower(entry))
		}
	}
	e, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case ok && e.Err == json.ErrUnknownName:
		var names []string
		for key := range settings() {
			names = append(names, key)
		}
		last := len(names) - 1
		return fmt.Errorf("unknown setting %.80q: there are %s and %s", e.JSONPointer.LastToken(), strings.Join(names[:last], ", "), names[last])
	case ok && e.GoType == reflect.TypeFor[identity.DeviceID]():
		return fmt.Errorf("peers: %w", e.Err)
	}
	return err
}

// checks tell for a setting what a string, or each of a list, must be besides
// checkText. The ones of strings name the setting in their errors.
var checks = map[string]func(string) error{
	"bootstrap": checkMultiaddr, "dht_listen": checkMultiaddr, "listen": checkListen, "engines": checkEngine, "peers": checkHostPort,
	"servers": checkServer, "switchboard": switchboard.CheckURL, "webrtc": checkWebRTC, "local_dir": checkLocalDir,
	"network_key": func(s string) error { _, err := networkKey(s); return err },
}

// readSetting refuses a value of another kind than its place takes, null among
// them, and reads strings and lists, with their checks.
func readSetting(dec *jsontext.Decoder, v any) error {
	key, _, _ := strings.Cut(strings.TrimPrefix(string(dec.StackPointer()), "/"), "/")
	kind := dec.PeekKind()
	_, members := dec.StackIndex(dec.StackDepth())
	switch to := v.(type) {
	case *Options:
		return want(kind, "{", "want settings in braces")
	case *bool:
		return want(kind, "tf", key+": want true or false")
	case *map[identity.DeviceID][]string:
		return want(kind, "{", "want "+key+": device ids with lists of addresses, in braces")
	case *string:
		return readWord(dec, key, to)
	case *[]string:
		if key == "peers" && members > 2*maxPeers {
			return fmt.Errorf("%s: more than %d devices", key, maxPeers)
		}
		return readList(dec, key, to)
	}
	return errors.ErrUnsupported // the library reads it
}

// want leaves a value of these kinds, and what is no value, to the library.
func want(kind jsontext.Kind, kinds, otherwise string) error {
	if kind != jsontext.KindInvalid && !strings.Contains(kinds, string(kind)) {
		return errors.New(otherwise)
	}
	return errors.ErrUnsupported
}

func readWord(dec *jsontext.Decoder, key string, to *string) error {
	tok, err := dec.ReadToken()
	switch {
	case err != nil:
		return err
	case tok.Kind() != '"':
		return fmt.Errorf("%s: want a string", key)
	}
	*to = tok.String()
	if err := checkText(*to); err != nil { // not quoted: it may be a secret
		return fmt.Errorf("%s: %w", key, err)
	}
	if checks[key] != nil {
		return checks[key](*to)
	}
	return nil
}

func readList(dec *jsontext.Decoder, key string, to *[]string) error {
	most := cmp.Or(map[string]int{"switchboard": maxBoards, "peers": maxPeerAddrs}[key], maxList)
	tok, err := dec.ReadToken()
	switch {
	case err != nil:
		return err
	case tok.Kind() != '[':
		return fmt.Errorf("want %s: a list of strings", key)
	}
	for {
		tok, err := dec.ReadToken()
		if err != nil || tok.Kind() == ']' {
			return err
		}
		s := tok.String()
		switch {
		case tok.Kind() != '"':
			return fmt.Errorf("want %s: a string", key)
		case len(*to) == most:
			return fmt.Errorf("%s: more than %d entries", key, most)
		case slices.Contains(*to, s):
			return fmt.Errorf("%s: %.80q is there twice", key, s)
		}
		if err = checkText(s); err == nil {
			err = checks[key](s)
		}
		if err != nil {
			return fmt.Errorf("%s: %.80q: %w", key, s, err)
		}
		*to = append(*to, s)
	}
}

// check finds in options what could not stand in config.json either. A relative
// LocalDir may: it is below the working directory of this process. Start looks at
// what WebRTC needs.
func (o *Options) check() error {
	for key, f := range settings() {
		if checks[key] == nil || slices.Contains([]string{"local_dir", "webrtc", "switchboard"}, key) {
			continue
		}
		var all []string
		switch v := reflect.ValueOf(o).Elem().FieldByIndex(f.Index).Interface().(type) {
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
