package identity

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSignatureFitsOneKeyPurposeAndMessage(t *testing.T) {
	stranger := generate(t, "stranger")
	for kind, id := range map[string]*Identity{"ed25519": generate(t, "me"), "p256": generateP256(t, "me")} {
		t.Run(kind, func(t *testing.T) {
			msg := []byte("here I am")
			sig, err := id.Sign("record", msg)
			if err != nil {
				t.Fatal(err)
			}
			if len(sig) > maxSignatureLen {
				t.Errorf("a signature has %d bytes", len(sig))
			}
			if err := id.Peer().Verify("record", msg, sig); err != nil {
				t.Error(err)
			}
			damaged := bytes.Clone(sig)
			damaged[len(damaged)/2] ^= 1
			for name, err := range map[string]error{
				"other purpose":     id.Peer().Verify("signal", msg, sig),
				"longer purpose":    id.Peer().Verify("record2", msg, sig),
				"shifted boundary":  id.Peer().Verify("recor", append([]byte("d\x00"), msg...), sig),
				"other message":     id.Peer().Verify("record", msg[1:], sig),
				"other key":         stranger.Peer().Verify("record", msg, sig),
				"damaged":           id.Peer().Verify("record", msg, damaged),
				"empty":             id.Peer().Verify("record", msg, nil),
				"cut off":           id.Peer().Verify("record", msg, sig[:len(sig)-1]),
				"longer":            id.Peer().Verify("record", msg, append(bytes.Clone(sig), 0)),
				"huge":              id.Peer().Verify("record", msg, make([]byte, 1<<20)),
				"by nobody":         Peer{}.Verify("record", msg, sig),
				"the account's key": verify(id.account.Public(), "record", msg, sig),
			} {
				if !errors.Is(err, ErrSignature) {
					t.Errorf("%s: %v, want ErrSignature", name, err)
				}
			}
		})
	}
}

// What is signed for one purpose can never be read as another: no two pairs
// of purpose and message make the same statement, as constants hold no zero
// byte.
func TestStatementsDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	for _, purpose := range []string{"", "a", "ab", "signal", "signal2"} {
		for _, msg := range []string{"", "a", "b", "ab", "\x00", "\x00a", "2\x00"} {
			st := string(statement(purpose, []byte(msg)))
			if other, ok := seen[st]; ok {
				t.Errorf("%q+%q collides with %s", purpose, msg, other)
			}
			seen[st] = purpose + "+" + msg
			if !strings.HasPrefix(st, "peerlink/"+purpose+"\x00") {
				t.Errorf("%q does not begin with its purpose", st)
			}
		}
	}
}
