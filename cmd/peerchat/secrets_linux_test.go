package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// forms are the ways in which secret bytes can stand in a text.
func forms(secret []byte) map[string][]byte {
	list := strings.Trim(fmt.Sprintf("%d", secret), "[]")
	out := map[string][]byte{
		"raw": secret, "hex": []byte(hex.EncodeToString(secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"numbers": []byte(list), "JSON numbers": []byte(strings.ReplaceAll(list, " ", ",")),
		"quoted": []byte(strings.Trim(fmt.Sprintf("%q", secret), `"`)),
	}
	for shift := range 3 { // whatever stands before it in base64
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), secret...))
			out[fmt.Sprint(name, shift)] = []byte(text[(shift*8+5)/6 : len(text)-1])
		}
	}
	return out
}

// secretsOf are both halves of what is private in each key of an account.
func secretsOf(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for blk, rest := pem.Decode(text); blk != nil; blk, rest = pem.Decode(rest) {
		if !strings.HasSuffix(blk.Type, "KEY") {
			continue
		}
		key := blk.Bytes[len(blk.Bytes)-32:] // a seed is the end of its encoding
		out[blk.Type+", first half"], out[blk.Type+", second half"] = key[:16], key[16:]
	}
	if len(out) < 4 {
		t.Fatalf("only %d secrets in %s", len(out), text)
	}
	return out
}

// leaks returns which secrets stand in a text.
func leaks(text []byte, secrets map[string][]byte) (found []string) {
	for name, s := range secrets {
		for form, b := range forms(s) {
			if bytes.Contains(text, b) {
				found = append(found, name+" as "+form)
			}
		}
	}
	return found
}

// searchFinds fails unless leaks finds what is there: in the file itself, and in
// other forms.
func searchFinds(t *testing.T, folder string, secrets map[string][]byte) {
	t.Helper()
	own, err := os.ReadFile(filepath.Join(folder, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(leaks(bytes.ReplaceAll(own, []byte("\n"), nil), secrets)); n < len(secrets) {
		t.Fatalf("%d of %d secrets are found in their own file", n, len(secrets))
	}
	for name, s := range secrets {
		for _, format := range []string{"x%xx", "x%Xx", "%v", "%s", "%q"} {
			if got := leaks(fmt.Appendf(nil, format, s), secrets); len(got) == 0 {
				t.Fatalf("%s is not found in %s", name, format)
			}
		}
	}
}

// fault: H7
func TestNoSecretIsPrintedLoggedOrGivenAsAnArgument(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	h.run("bob", "init")
	h.run("alice", "init")
	const turn, network = "hush-turn-9d1f", "0123456789abcdef0f1e2d3c4b5a69788796a5b4c3d2e1f000112233445566ff"
	config := `{"turn_user":"u","turn_secret":"` + turn + `","network_key":"` + network + `"}`
	if err := os.WriteFile(filepath.Join(h.account("alice"), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets := secretsOf(t, h.account("alice"))
	searchFinds(t, h.account("alice"), secrets)

	bobID := strings.TrimSpace(h.run("bob", "id"))
	var all bytes.Buffer
	do := func(name string, args ...string) {
		cmd := h.command(name, append(args, "--verbose")...)
		cmd.Stdout, cmd.Stderr = &all, &all
		_ = cmd.Run() // failures are told, too
	}
	t.Cleanup(func() { h.run("alice", "stop"); h.run("bob", "stop") })
	do("alice", "contacts", "add", "bob", bobID) // and it starts the daemon, whose log is verbose
	do("bob", "status")
	for _, line := range []string{
		"status --json", "status --metrics", "chat --queue bob", "history bob --json", "forward allow bob 127.0.0.1:1 --json",
		"pipe bob", "send bob /nowhere", "run --json", "doctor " + bobID + " --no-daemon",
	} {
		do("alice", strings.Fields(line)...)
	}
	pid := 0
	if _, err := fmt.Sscanf(h.run("alice", "status", "--json"), `{"pid":%d`, &pid); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid), filepath.Join(h.account("alice"), logFile)} {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s has %d bytes, %v", path, len(b), err)
		}
		all.Write(b)
	}
	text := all.Bytes()
	for _, want := range []string{bobID, `"links":[]`, "# HELP", "level=DEBUG", "run --detached"} { // or it looked through nothing
		if !bytes.Contains(bytes.ReplaceAll(text, []byte{0}, []byte(" ")), []byte(want)) {
			t.Fatalf("%q is not in\n%s", want, text)
		}
	}
	if found := leaks(text, secrets); len(found) > 0 {
		t.Errorf("printed: %q", found)
	}
	for _, s := range []string{turn, network} {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("the secret %s of the settings was printed", s)
		}
	}
}
