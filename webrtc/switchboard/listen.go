package switchboard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Listen opens addr ("host:port") for Server.Serve: with TLS by the certificate
// and key of two PEM files, which are read again when they change, as those of
// ACME do; without both for plain HTTP, on loopback or behind a proxy that has
// TLS. The files are checked first.
func Listen(ctx context.Context, addr, certFile, keyFile string) (net.Listener, error) {
	var conf *tls.Config
	if certFile != "" || keyFile != "" {
		k := &keyPair{certFile: certFile, keyFile: keyFile}
		if _, err := k.get(nil); err != nil {
			return nil, err
		}
		conf = &tls.Config{GetCertificate: k.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("switchboard: %w", err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	return l, nil
}

type keyPair struct {
	certFile, keyFile string

	mu       sync.Mutex
	cert     *tls.Certificate
	from     [2]time.Time // when the files were changed
	lookedAt time.Time
}

// lookAgain is how often the files are looked at.
const lookAgain = time.Minute

// get returns the certificate. Files that cannot be used leave the one before.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if k.cert != nil && now.Sub(k.lookedAt) < lookAgain {
		return k.cert, nil
	}
	k.lookedAt = now
	fresh, from, err := k.load()
	switch {
	case err == nil && fresh != nil:
		k.cert, k.from = fresh, from
	case err != nil && k.cert == nil:
		return nil, fmt.Errorf("switchboard: TLS certificate %q with key %q: %w", k.certFile, k.keyFile, err)
	}
	return k.cert, nil
}

// load reads the files; nil if they have not changed.
func (k *keyPair) load() (*tls.Certificate, [2]time.Time, error) {
	var from [2]time.Time
	for i, name := range []string{k.certFile, k.keyFile} {
		st, err := os.Stat(name)
		if err != nil {
			return nil, from, err
		}
		if st.Size() > 1<<20 {
			return nil, from, errors.New("a file of more than 1 MiB")
		}
		from[i] = st.ModTime()
	}
	if k.cert != nil && from == k.from {
		return nil, from, nil
	}
	cert, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	return &cert, from, err
}
