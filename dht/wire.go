package dht

import (
	"fmt"
	"time"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// A signed statement is how records and signals travel:
//
//	[statement bytes, signature bytes]
//
// The signature is the device's over the statement exactly as it was received,
// so nothing depends on how somebody else would encode the same values. The
// statement begins with its version; what a later version appends is skipped.
const wireVersion = 1

func sign(id *identity.Identity, purpose string, values ...any) ([]byte, error) {
	st, err := packed.Pack(values...)
	if err != nil {
		return nil, err
	}
	sig, err := id.Sign(purpose, st)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", purpose, err)
	}
	return packed.Pack(st, sig)
}

// signed is a statement and its signature, neither believed yet.
type signed struct {
	statement, signature []byte
}

// maxSignature is the longest signature of a device key (ASN.1 P-256).
const maxSignature = 72

// readSigned takes what is called so, of at most most bytes, apart, and begins to
// read its statement, which has so many known elements and its version before them.
func readSigned(what string, b []byte, most, known int) (s signed, f *packed.Fields, err error) {
	if len(b) > most {
		return s, nil, fmt.Errorf("the %s has %d bytes, at most %d are taken", what, len(b), most)
	}
	if s.statement, s.signature, err = packed.Signed(b, most, maxSignature); err != nil {
		return s, nil, err
	}
	f = packed.NewFields(s.statement, known)
	if v := f.Uint(1 << 16); v != wireVersion {
		f.Fail(fmt.Errorf("version %d, this program knows %d: update the older side", v, wireVersion))
	}
	return s, f, nil
}

// readChain reads a certificate chain; its sizes are checked, nothing else.
func readChain(f *packed.Fields) [][]byte {
	return f.Blobs(identity.MaxChainLen, identity.MaxCertLen)
}

func readTime(f *packed.Fields) time.Time { return time.UnixMilli(int64(f.Uint(maxUnixMilli))) }
