package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"peerlink"
	"peerlink/identity"
)

// method calls one method of a manager, and says how it answers before Start and
// after Close. nil: it needs neither.
type method struct {
	call          func(*peerlink.ConnectionManager) error
	before, after error
}

// methodsTo are all exported methods of a manager, with calls to a device.
func methodsTo(bob identity.DeviceID) map[string]method {
	needsStart := func(call func(m *peerlink.ConnectionManager) error) method {
		return method{call, peerlink.ErrNotStarted, peerlink.ErrClosed}
	}
	claims := func(call func(m *peerlink.ConnectionManager, pattern string) (net.Listener, error)) method {
		return method{func(m *peerlink.ConnectionManager) error {
			l, err := call(m, "x://")
			if err == nil {
				err = l.Close()
			} else if l != nil && !reflect.ValueOf(l).IsZero() {
				err = fmt.Errorf("a listener beside %w", err)
			}
			return err
		}, nil, peerlink.ErrClosed}
	}
	tells := func(call func(m *peerlink.ConnectionManager) any) method {
		return method{func(m *peerlink.ConnectionManager) error {
			if v := call(m); v != nil && !reflect.ValueOf(v).IsZero() {
				return fmt.Errorf("it tells %v", v)
			}
			return nil
		}, nil, nil}
	}
	fetches := func(over func(*peerlink.ConnectionManager) http.RoundTripper) method {
		return needsStart(func(m *peerlink.ConnectionManager) error {
			resp, err := (&http.Client{Transport: over(m)}).Get("http+peer://" + bob.String())
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		})
	}
	return map[string]method{
		"AddConn": needsStart(func(m *peerlink.ConnectionManager) error {
			a, _ := net.Pipe()
			_, err := m.AddConn(background, a, identity.Peer{Device: bob}, peerlink.Outbound)
			return err
		}),
		"Capacity": tells(func(m *peerlink.ConnectionManager) any { _, taken := m.Capacity(); return taken }),
		"CloseConnectionsWith": tells(func(m *peerlink.ConnectionManager) any {
			return m.CloseConnectionsWith(bob)
		}),
		"CloseLink": {func(m *peerlink.ConnectionManager) error { return m.CloseLink(peerlink.LinkID{}) }, peerlink.ErrNotConnected, peerlink.ErrNotConnected},
		"ConnectAddr": needsStart(func(m *peerlink.ConnectionManager) error {
			_, err := m.ConnectAddr(background, "127.0.0.1:1", bob)
			return err
		}),
		"ConnectDevice": needsStart(func(m *peerlink.ConnectionManager) error {
			_, err := m.ConnectDevice(background, bob, "x://", peerlink.ConnectOptions{})
			return err
		}),
		"Connections":         tells(func(m *peerlink.ConnectionManager) any { return len(m.Connections()) }),
		"ConnectivityChanged": tells(func(m *peerlink.ConnectionManager) any { m.ConnectivityChanged(); return nil }),
		"Dial":                needsStart(func(m *peerlink.ConnectionManager) error { _, err := m.Dial(background, bob, "x://"); return err }),
		"DialContext": needsStart(func(m *peerlink.ConnectionManager) error {
			_, err := m.DialContext(background, "tcp", "peer://"+bob.String()+"/x://")
			return err
		}),
		"DialWith": needsStart(func(m *peerlink.ConnectionManager) error {
			_, err := m.DialWith(peerlink.ConnectOptions{})(background, "tcp", "peer://"+bob.String()+"/x://")
			return err
		}),
		"Events": tells(func(m *peerlink.ConnectionManager) any {
			ctx, cancel := context.WithCancel(background)
			events := m.Events(ctx)
			cancel()
			n := 0
			for range events {
				n++
			}
			return n
		}),
		"HTTP2Transport": fetches((*peerlink.ConnectionManager).HTTP2Transport),
		"IsConnected":    tells(func(m *peerlink.ConnectionManager) any { return m.IsConnected(bob) }),
		"IsConnecting":   tells(func(m *peerlink.ConnectionManager) any { return m.IsConnecting(bob) }),
		"Link":           {func(m *peerlink.ConnectionManager) error { _, err := m.Link(peerlink.LinkID{}); return err }, peerlink.ErrNotConnected, peerlink.ErrNotConnected},
		"Links": tells(func(m *peerlink.ConnectionManager) any {
			n := 0
			for range m.Links() {
				n++
			}
			return n
		}),
		"Listen":         claims((*peerlink.ConnectionManager).Listen),
		"ListenChannels": claims(func(m *peerlink.ConnectionManager, p string) (net.Listener, error) { return m.ListenChannels(p) }),
		"ListenFunc":     claims(func(m *peerlink.ConnectionManager, p string) (net.Listener, error) { return m.ListenFunc(p, nil) }),
		"Metrics": tells(func(m *peerlink.ConnectionManager) any {
			s := m.Metrics()
			s.Carriers = nil
			return fmt.Sprint(s) != fmt.Sprint(peerlink.Metrics{})
		}),
		"SetCallbacks": {func(m *peerlink.ConnectionManager) error { return m.SetCallbacks(peerlink.Callbacks{}) }, nil, peerlink.ErrClosed},
		"Transport":    fetches((*peerlink.ConnectionManager).Transport),

		// In this order, as each changes what the others answer.
		"Start":    {func(m *peerlink.ConnectionManager) error { return m.Start(nil, nil) }, nil, peerlink.ErrClosed},
		"Shutdown": {func(m *peerlink.ConnectionManager) error { return m.Shutdown(background) }, nil, nil},
		"Close":    {func(m *peerlink.ConnectionManager) error { return m.Close() }, nil, nil},
	}
}

// Every method answers before Start and after the end, in no time, and says which
// of the two it is; one of a manager that was not made says that.
//
// case: E8
func TestEveryMethodAnswersAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, err := identity.Generate("alice")
		if err != nil {
			t.Fatal(err)
		}
		m, err := peerlink.Open(peerlink.Config{Identity: id, Network: peerlink.IgnoreNetwork})
		if err != nil {
			t.Fatal(err)
		}
		all := methodsTo(identity.DeviceID{2})
		for method := range reflect.TypeFor[*peerlink.ConnectionManager]().Methods() {
			if all[method.Name].call == nil {
				t.Errorf("%s is not in the table", method.Name)
			}
		}
		ends := []string{"Start", "Shutdown", "Close"}
		answer := func(when string, name string, want error) {
			if err := all[name].call(m); !errors.Is(err, want) || want == peerlink.ErrClosed && !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s %s: %v, want %v", name, when, err, want)
			}
		}
		for name, what := range all {
			if name != ends[0] && name != ends[1] && name != ends[2] {
				answer("before Start", name, what.before)
			}
		}
		for _, name := range ends {
			answer("in its turn", name, all[name].before)
		}
		for name, what := range all {
			answer("after Close", name, what.after)
		}
		for name, what := range all {
			for kind, none := range map[string]*peerlink.ConnectionManager{"nil": nil, "zero": {}} {
				func() {
					defer func() {
						if p := fmt.Sprint(recover()); !strings.Contains(p, "neither New nor Open") {
							t.Errorf("%s of a %s manager: %s", name, kind, p)
						}
					}()
					if err := what.call(none); err != nil {
						t.Errorf("%s of a %s manager: %v", name, kind, err)
					}
				}()
			}
		}
	})
}
