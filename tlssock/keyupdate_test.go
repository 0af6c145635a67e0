package tlssock

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

// After the handshake a peer may ask for new keys again and again, or send
// handshake messages that TLS 1.3 does not have there. The first is cut short,
// the second refused at once.
//
// fault: D8
func TestFloodOfKeyUpdatesIsCutShort(t *testing.T) {
	for name, tt := range map[string]struct {
		msg  []byte
		want string
		most int
	}{
		"key updates":                 {[]byte{24, 0, 0, 1, 0}, "too many", 40},
		"hello request (renegotiate)": {[]byte{0, 0, 0, 0}, "unexpected handshake message", 1},
		"client hello (renegotiate)":  {[]byte{1, 0, 0, 2, 3, 3}, "tls: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
			c, s := tcpPipe(t)
			log := &keyLog{}
			cfg := Config{Identity: alice}.ClientTLS(bob.DeviceID())
			cfg.KeyLogWriter = log
			servedc := make(chan error, 1)
			go func() {
				conn, err := Server(t.Context(), s, bob, nil)
				if err == nil {
					_, err = conn.Read(make([]byte, 1))
					conn.Close()
				}
				servedc <- err
			}()
			tc := tls.Client(c, cfg)
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			keys := newTraffic(t, tc.ConnectionState().CipherSuite, log.secret(t, "CLIENT_TRAFFIC_SECRET_0"))
			for range tt.most {
				if _, err := c.Write(keys.seal(t, tt.msg)); err != nil {
					break
				}
				if tt.msg[0] == 24 {
					keys = keys.next(t)
				}
			}
			if err := <-servedc; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("after %d messages: %v, want %q in it", tt.most, err, tt.want)
			}
		})
	}
}

// keyLog keeps what KeyLogWriter is given.
type keyLog struct{ strings.Builder }

func (l *keyLog) secret(t *testing.T, label string) []byte {
	for line := range strings.Lines(l.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			b, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("no %s in the key log", label)
	return nil
}

// traffic is one generation of a sender's keys (RFC 8446, section 7.3).
type traffic struct {
	suite  uint16
	hash   func() hash.Hash
	secret []byte
	aead   cipher.AEAD
	iv     []byte
}

func newTraffic(t *testing.T, suite uint16, secret []byte) *traffic {
	k := &traffic{suite: suite, hash: sha256.New, secret: secret}
	keyLen := 16
	switch suite {
	case tls.TLS_AES_256_GCM_SHA384:
		k.hash, keyLen = sha512.New384, 32
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		keyLen = 32
	}
	key := k.expand(t, "key", keyLen)
	k.iv = k.expand(t, "iv", 12)
	var err error
	if suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		k.aead, err = chacha20poly1305.New(key)
	} else {
		block, blockErr := aes.NewCipher(key)
		if blockErr != nil {
			t.Fatal(blockErr)
		}
		k.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *traffic) next(t *testing.T) *traffic {
	return newTraffic(t, k.suite, k.expand(t, "traffic upd", len(k.secret)))
}

// expand is HKDF-Expand-Label with an empty context.
func (k *traffic) expand(t *testing.T, label string, n int) []byte {
	var b cryptobyte.Builder
	b.AddUint16(uint16(n))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("tls13 " + label)) })
	b.AddUint8(0)
	out, err := hkdf.Expand(k.hash, k.secret, string(b.BytesOrPanic()), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// seal makes the first record of this generation, a handshake message.
func (k *traffic) seal(t *testing.T, msg []byte) []byte {
	plain := append(append([]byte{}, msg...), 22)
	rec := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(rec[3:], uint16(len(plain)+k.aead.Overhead()))
	return k.aead.Seal(rec, k.iv, plain, rec)
}
