package account

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"peerlink/identity"
)

// someID is a device id that no device has.
var someID = identity.DeviceID{1, 2, 3}

func fullConfig() Options {
	return Options{
		Bootstrap: []string{"/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW", "/dns4/boot.example/tcp/4001"},
		DHTListen: []string{"/ip4/0.0.0.0/tcp/4001"},
		Listen:    []string{":4100", "[::1]:0", "host.example:4100"},
		Peers:     map[identity.DeviceID][]string{someID: {"192.0.2.7:4100", "[2001:db8::1]:4100"}, {9}: {"h:1"}},
		Engines:   []string{"udp", "tcp"},
		Loopback:  true,
		LAN:       true,
		LocalDir:  "off",

		NetworkKey: strings.Repeat("0f", 32),

		Servers:  []string{"stun:192.0.2.7:3478", "turn:relay.example?transport=tcp", "turns:relay.example:443"},
		TURNUser: "alice", TURNPassword: "wonderland", TURNSecret: "a secret",
	}
}

// configText writes settings as a person would.
func configText(t testing.TB, o Options) []byte {
	t.Helper()
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestConfigRoundTrip(t *testing.T) {
	for _, want := range []Options{{}, fullConfig()} {
		b := configText(t, want)
		for name, text := range map[string][]byte{
			"as written": b,
			"CRLF":       bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")),
			"one line":   bytes.ReplaceAll(b, []byte("\n"), nil),
		} {
			got, err := parseConfig(text)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
			}
		}
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []Options{
		{Listen: []string{"nonsense"}},
		{Engines: []string{"pigeon"}},
		{Bootstrap: []string{""}},
		{Peers: map[identity.DeviceID][]string{{}: {"h:1"}}},
		{Listen: []string{":1", ":1"}},
	} {
		b := configText(t, c)
		if _, err := parseConfig(b); err == nil {
			t.Errorf("%s was read", b)
		}
	}
}

// fault: H6
func TestConfigErrorsNameTheirLine(t *testing.T) {
	id := someID.String()
	for name, tt := range map[string]struct{ text, want string }{
		"empty":                  {"", "line 1: it is empty"},
		"blank":                  {"\n\n", "line 1: it is empty"},
		"byte order mark":        {"\ufeff{}", "line 1: it begins with a byte order mark"},
		"UTF-16":                 {"\xff\xfe{\x00}\x00", "line 1: it is UTF-16"},
		"not UTF-8":              {"{\n\"listen\":\n[\"\xff:1\"]}", "line 3: not UTF-8"},
		"network key of 63":      {"{\"network_key\": \"" + strings.Repeat("a", 63) + "\"}", `line 1: network_key: want 64 hex digits`},
		"network key, not hex":   {"{\"network_key\": \"" + strings.Repeat("x", 64) + "\"}", `line 1: network_key: want 64 hex digits`},
		"relative folder":        {"{\n\"local_dir\": \"run/peerlink\"}", `line 2: local_dir: "run/peerlink": want an absolute path, or "off"`},
		"folder that is a flag":  {"{\"local_dir\": false}", "line 1: local_dir: want a string"},
		"unknown key":            {"{\n  \"loopback\": true,\n  \"lisen\": []\n}", `line 3: unknown setting "lisen"`},
		"key in another case":    {"{\"Loopback\": true}", `line 1: unknown setting "Loopback"`},
		"key twice":              {"{\"loopback\": true,\n\"loopback\": false}", `line 2: "loopback" is set twice`},
		"wrong type":             {"{\n\"loopback\": \"yes\"}", "line 2: loopback: want true or false"},
		"null":                   {"{\n\"listen\": null}", "line 2: want listen: a list"},
		"string for a list":      {"{\n\"listen\":\n\":1\"}", "line 3: want listen: a list"},
		"number in a list":       {"{\"listen\": [\n\":1\",\n7]}", "line 3: want listen: a string"},
		"list in a list":         {"{\"listen\": [\n[]]}", "line 2: want listen: a string"},
		"list for an object":     {"[]", "line 1: want settings in braces"},
		"entry twice":            {"{\"listen\": [\":1\",\n\":1\"]}", `line 2: listen: ":1" is there twice`},
		"no port":                {"{\"listen\": [\n\"host\"]}", `line 2: listen: "host": want HOST:PORT`},
		"port too large":         {"{\"listen\": [\":65536\"]}", "want a port from 0 to 65535"},
		"peer without host":      {"{\"peers\": {\"" + id + "\": [\n\":1\"]}}", "line 2: peers: \":1\": the host is missing"},
		"peer with port 0":       {"{\"peers\": {\"" + id + "\": [\"h:0\"]}}", "want a port from 1"},
		"peer that is no id":     {"{\"peers\": {\n\"bob\": [\"h:1\"]}}", "line 2: peers: identity: malformed id"},
		"peer twice":             {"{\"peers\": {\"" + id + "\": [],\n\"" + strings.ToUpper(id) + "\": []}}", "line 2: peers: device " + id + " is there twice"},
		"peer with a string":     {"{\"peers\": {\"" + id + "\": \"h:1\"}}", "want peers: a list"},
		"too many addresses":     {"{\"peers\": {\"" + id + "\": [\"h:1\",\"h:2\",\"h:3\",\"h:4\",\"h:5\",\"h:6\",\"h:7\",\"h:8\",\"h:9\"]}}", "more than 8 entries"},
		"unknown engine":         {"{\"engines\": [\"tcp\",\n\"pigeon\"]}", `line 2: engines: "pigeon": want "tcp" or "udp"`},
		"no multiaddress":        {"{\"bootstrap\": [\"192.0.2.7:4001\"]}", "want a multiaddress"},
		"terminal escape":        {`{"bootstrap": ["/ip4/\u001b[2J"]}`, "unprintable"},
		"half a surrogate":       {`{"bootstrap": ["/ip4/\ud800"]}`, "unprintable"},
		"endless entry":          {"{\"bootstrap\": [\"/" + strings.Repeat("x", 1000) + "\"]}", "at most 512"},
		"too many entries":       {"{\"listen\": [" + manyPorts(maxList+1) + "]}", "more than 64 entries"},
		"too large":              {"{" + strings.Repeat(" ", maxConfigLen) + "}", "at most 1048576"},
		"missing comma":          {"{\"loopback\": true\n\"listen\": []}", "line 2: not JSON"},
		"comment":                {"{ // mine\n}", "line 1: not JSON"},
		"half written":           {"{\n  \"listen\": [\n    \":1\",\n", "line 4: the rest is cut off"},
		"half a word":            {"{\n\"loopback\": tr", "line 2: "},
		"only a brace":           {"{", "the rest is cut off"},
		"written over a longer":  {"{}\n\n\": []}", "line 3: there is more after the end"},
		"deep":                   {strings.Repeat("[", 100_000), "line 1"},
		"text, not a file of it": {"hello", "line 1: not JSON"},
	} {
		c, err := parseConfig([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
			continue
		}
		if !reflect.DeepEqual(c, Options{}) {
			t.Errorf("%s: half of it was taken: %+v", name, c)
		}
		if len(err.Error()) > 700 || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s: the error is %d bytes long or not escaped", name, len(err.Error()))
		}
	}
}

func manyPorts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",\":%d\"", i)
	}
	return b.String()[1:]
}

// fault: H6, I1
func TestConfigCutAnywhereIsRefused(t *testing.T) {
	b := configText(t, fullConfig())
	for n := range len(bytes.TrimSpace(b)) {
		if _, err := parseConfig(b[:n]); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("cut to %q: %v", b[:n], err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(configText(f, fullConfig()))
	f.Add([]byte("{}"))
	f.Add([]byte(`{"peers": {"` + someID.String() + `": ["h:1"]}, "loopback": false}`))
	f.Add([]byte("{\"listen\": [\":1\",\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err != nil {
			if len(err.Error()) > 1000 || !reflect.DeepEqual(c, Options{}) {
				t.Errorf("%+v with an error of %d bytes", c, len(err.Error()))
			}
			return
		}
		text := configText(t, c)
		again, err := parseConfig(text)
		if err != nil {
			t.Fatalf("%q became %q: %v", b, text, err)
		}
		if out := configText(t, again); !bytes.Equal(out, text) {
			t.Errorf("%q became %q", text, out)
		}
	})
}

func TestWhatIsNotSetByOptionsIsTakenFromTheConfig(t *testing.T) {
	o := Options{Listen: []string{}, Engines: []string{"tcp"}, WebRTC: "off"}
	o.fill(fullConfig())
	want := fullConfig()
	if len(o.Listen) != 0 || !reflect.DeepEqual(o.Engines, []string{"tcp"}) || o.WebRTC != "off" {
		t.Errorf("what was set was replaced: %+v", o)
	}
	if !reflect.DeepEqual(o.Bootstrap, want.Bootstrap) || !reflect.DeepEqual(o.Servers, want.Servers) || !o.Loopback || !o.LAN || o.LocalDir != "off" {
		t.Errorf("settings were left out: %+v", o)
	}
}
