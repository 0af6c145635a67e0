package identity

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func encode(t testing.TB, id *Identity) []byte {
	t.Helper()
	b, err := id.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// deviceOnly is an identity that does not hold its account's key.
func deviceOnly(t testing.TB) *Identity {
	id := generate(t, "phone")
	id.account = nil
	return id
}

func TestEncodedIdentityIsTheSameAfterDecode(t *testing.T) {
	for name, id := range map[string]*Identity{"ed25519": generate(t, "me"), "p256": generateP256(t, "me"), "device only": deviceOnly(t)} {
		t.Run(name, func(t *testing.T) {
			b := encode(t, id)
			if len(b) > MaxEncodedLen/2 {
				t.Errorf("%d bytes of at most %d", len(b), MaxEncodedLen)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got.DeviceID() != id.DeviceID() || got.AccountID() != id.AccountID() || got.Name() != id.Name() || (got.account == nil) != (id.account == nil) {
				t.Errorf("%v became %v", id.Peer(), got.Peer())
			}
			if !bytes.Equal(encode(t, got), b) {
				t.Error("a second Encode differs")
			}
			sealed, err := Seal(id.SealingKey(), "x", []byte("msg"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := got.Open("x", sealed); err != nil {
				t.Errorf("the decoded identity cannot open: %v", err)
			}
			sig, err := got.Sign("x", []byte("msg"))
			if err != nil || id.Peer().Verify("x", []byte("msg"), sig) != nil {
				t.Errorf("the decoded identity cannot sign: %v", err)
			}
		})
	}
}

func TestDecodeTakesWhatEditorsDoToLineEnds(t *testing.T) {
	b := encode(t, generate(t, "me"))
	for name, text := range map[string][]byte{
		"CRLF":            bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")),
		"blank lines":     bytes.ReplaceAll(b, []byte("-----BEGIN"), []byte("\n\n-----BEGIN")),
		"no last newline": bytes.TrimSpace(b),
	} {
		if _, err := Decode(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Cut at any byte, short of any line, with any byte changed: an error, never a
// smaller identity.
//
// fault: D10, I1
func TestDamagedEncodingIsRefused(t *testing.T) {
	whole := encode(t, generate(t, "me"))
	for n := range len(bytes.TrimSpace(whole)) {
		if _, err := Decode(whole[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes: taken", n, len(whole))
		}
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for i := range lines[:len(lines)-1] {
		without := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
		if _, err := Decode([]byte(without)); err == nil {
			t.Errorf("without line %d %q: taken", i+1, lines[i])
		}
		twice := strings.Join(lines[:i+1], "") + strings.Join(lines[i:], "")
		if _, err := Decode([]byte(twice)); err == nil {
			t.Errorf("with line %d twice %q: taken", i+1, lines[i])
		}
		changed := strings.Join(lines[:i], "") + "*" + lines[i][1:] + strings.Join(lines[i+1:], "")
		if _, err := Decode([]byte(changed)); err == nil {
			t.Errorf("with line %d changed: taken", i+1)
		}
	}
}

func blocks(text []byte) (out []string) {
	for b := range strings.SplitAfterSeq(string(text), "-----END ") {
		out = append(out, b)
	}
	// Each piece but the last ends within an END line; move that line's rest.
	for i := range len(out) - 1 {
		name, rest, _ := strings.Cut(out[i+1], "\n")
		out[i] += name + "\n"
		out[i+1] = rest
	}
	return out[:len(out)-1]
}

// fault: D10
func TestMixedUpBlocksAreRefused(t *testing.T) {
	a, b := blocks(encode(t, generate(t, "a"))), blocks(encode(t, generate(t, "b")))
	const deviceCert, accountCert, device, account, hpke = 0, 1, 2, 3, 4
	if len(a) != 5 {
		t.Fatalf("%d blocks: %q", len(a), a)
	}
	swap := func(i int) string { c := append([]string{}, a...); c[i] = b[i]; return strings.Join(c, "") }
	drop := func(i int) string { c := append([]string{}, a...); c[i] = ""; return strings.Join(c, "") }
	rename := func(i int, old, new string) string {
		c := append([]string{}, a...)
		c[i] = strings.ReplaceAll(c[i], old, new)
		return strings.Join(c, "")
	}
	all := strings.Join(a, "")
	for name, tt := range map[string]struct{ text, want string }{
		"other device certificate":  {swap(deviceCert), "certificate"},
		"other account certificate": {swap(accountCert), "certificate"},
		"other device key":          {swap(device), "not the key of the certificate"},
		"other account key":         {swap(account), "not the key of the certificate"},
		"no certificate":            {strings.Join(a[2:], ""), "no certificate"},
		"no device certificate":     {drop(deviceCert), "1 certificates"},
		"no account certificate":    {drop(accountCert), "1 certificates"},
		"no device key":             {drop(device), `no "PEERLINK DEVICE KEY"`},
		"no HPKE key":               {drop(hpke), `no "PEERLINK HPKE KEY"`},
		"keys exchanged":            {strings.Join(a[:2], "") + strings.ReplaceAll(a[device], "DEVICE", "ACCOUNT") + strings.ReplaceAll(a[account], "ACCOUNT", "DEVICE") + a[hpke], "not the key of the certificate"},
		"key that is not PKCS #8":   {strings.Join(a[:2], "") + strings.ReplaceAll(a[hpke], "HPKE", "DEVICE") + a[hpke], "DEVICE"},
		"device key twice":          {all + a[device], "two"},
		"four certificates":         {a[deviceCert] + a[accountCert] + all, "4 certificates"},
		"unknown block":             {all + strings.ReplaceAll(a[hpke], "HPKE", "OTHER"), "unknown block"},
		"misnamed account key":      {rename(account, "ACCOUNT KEY", "ACCOUNT KEX"), "unknown block"},
		"text before":               {"my keys:\n" + all, "not the beginning"},
		"text between":              {a[0] + "# comment\n" + strings.Join(a[1:], ""), "not the beginning"},
		"text behind":               {all + "end", "not the beginning"},
		"byte order mark":           {"\ufeff" + all, "not the beginning"},
		"damaged account key":       {rename(account, "-----END PEERLINK", "----END PEERLINK"), "damaged or truncated"},
		"PEM headers":               {rename(hpke, "HPKE KEY-----\n", "HPKE KEY-----\nProc-Type: 4,ENCRYPTED\n\n"), "headers"},
		"too long":                  {all + strings.Repeat("\n", MaxEncodedLen), "at most"},
		"empty":                     {"", "no certificate"},
	} {
		if _, err := Decode([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
	}
}

// A device whose certificate has expired can still say who it was.
func TestExpiredIdentityDecodes(t *testing.T) {
	id := generate(t, "me")
	if _, err := VerifyChain(id.Peer().Chain(), time.Now().Add(20*deviceValidity)); err == nil {
		t.Fatal("it never expires")
	}
	if _, err := Decode(encode(t, id)); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := os.ReadFile(vectorPEM)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(strings.Join(blocks(whole)[:4], "")))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := Decode(b)
		if err != nil {
			if id != nil || len(err.Error()) > 2048 {
				t.Errorf("%v with %.200q", id, err)
			}
			return
		}
		again, err := Decode(encode(t, id))
		if err != nil || again.DeviceID() != id.DeviceID() || (again.account == nil) != (id.account == nil) {
			t.Errorf("round trip: %v", err)
		}
		if bytes.Contains(fmt.Append(nil, id.Peer()), []byte{0x1b}) {
			t.Error("an escape in the name")
		}
	})
}
