package chat

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/identity"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

func store(t testing.TB) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "chat.db"))
}

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// person is a device with its manager.
type person struct {
	id *identity.Identity
	m  *peerlink.ConnectionManager
}

func newPerson(t testing.TB, name string) *person {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := peerlink.New(peerlink.Config{Identity: id, Network: peerlink.IgnoreNetwork})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return &person{id, m}
}

func (p *person) device() identity.DeviceID { return p.id.DeviceID() }

// link joins two devices, through a conn that cut ends.
func link(t testing.TB, a, b *person) (cut func()) {
	t.Helper()
	x, y := net.Pipe()
	errc := make(chan error, 1)
	go func() {
		_, err := b.m.AddConn(context.Background(), y, a.id.Peer(), peerlink.Inbound)
		errc <- err
	}()
	_, err := a.m.AddConn(t.Context(), x, b.id.Peer(), peerlink.Outbound)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	return func() { _, _ = x.Close(), y.Close() }
}

func service(t testing.TB, st *Store, p *person) *Service {
	t.Helper()
	s, err := New(Config{Store: st, Net: p.m, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
