package peerlink_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"peerlink"
	"peerlink/peerlinktest"
)

// closes are the calls that close links.
var closes = map[string]func(alice *device) error{
	"CloseLink": func(alice *device) error { return alice.CloseLink(alice.Connections()[0].ID) },
	"Link.Close": func(alice *device) error {
		l, err := alice.Link(alice.Connections()[0].ID)
		if err != nil {
			return err
		}
		return l.Close()
	},
	"Close": func(alice *device) error { return alice.Close() },
}

// A call that closes a link says of it what its peer has not confirmed, and
// nothing else: a peer that takes all, or to which nothing was sent, is no error.
func TestClosingSaysWhatWasCut(t *testing.T) {
	for name, closes := range closes {
		for what, c := range map[string]struct {
			written int
			hushed  bool // before that
			cut     bool
		}{
			"all arrives":      {1 << 20, false, false},
			"nothing was sent": {0, true, false},
			"bytes are cut":    {1000, true, true},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := peerlinktest.New(t)
					alice, bob := on(n, "alice", nil), on(n, "bob", nil)
					sink := bob.accepted(t, "*")
					sock := connect(t, alice, bob, "sink://")
					far := <-sink
					go func() { _, _ = io.Copy(io.Discard, far) }()
					synctest.Wait()
					if c.hushed {
						n.Silence("alice", "bob")
					}
					if _, err := sock.Write(make([]byte, c.written)); err != nil {
						t.Error(err)
					}
					err := closes(alice)
					cut, is := errors.AsType[*peerlink.ShutdownError](err)
					switch {
					case is != c.cut || !is && err != nil:
						t.Errorf("%v", err)
					case is && (len(cut.Cut) != 1 || cut.Cut[0].Peer.Device != bob.id.DeviceID() || cut.Cut[0].ID.IsZero() || cut.Cut[0].Carrier != "memory" || !errors.Is(err, os.ErrDeadlineExceeded)):
						t.Errorf("%+v", cut)
					}
					if err := alice.Close(); err != nil {
						t.Errorf("afterwards: %v", err)
					}
				})
			})
		}
	}
}

// However many goroutines close a manager, each of them is told of each link that
// was cut, and what is said to people is bounded.
func TestEachCloserIsToldOfManyCutLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const links = 50
		n := peerlinktest.New(t)
		alice := on(n, "alice", nil)
		for i := range links {
			name := fmt.Sprint("bob ", i)
			bob := on(n, name, nil)
			bob.accepted(t, "*")
			sock := connect(t, alice, bob, "sink://")
			synctest.Wait()
			n.Silence("alice", name)
			if _, err := sock.Write(make([]byte, 1000)); err != nil {
				t.Error(err)
			}
		}
		errs := make(chan error, 5)
		for range cap(errs) {
			go func() { errs <- alice.Close() }()
		}
		for range cap(errs) {
			err := <-errs
			if cut, ok := errors.AsType[*peerlink.ShutdownError](err); !ok || len(cut.Cut) != links {
				t.Errorf("%v", err)
			} else if text := err.Error(); len(text) > 1500 || !strings.Contains(text, "50 links") || !strings.Contains(text, "42 more") {
				t.Errorf("%d bytes: %s", len(text), text)
			}
		}
	})
}
