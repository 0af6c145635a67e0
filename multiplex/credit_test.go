package multiplex

import (
	"testing"
	"testing/synctest"
)

func TestTakenDatagramsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := packetPipe(t, 1000, asItIs)
		a, b := between(t, client, server, "x")
		b.TakeDatagram()
		for range 1000 {
			if err := a.SendDatagram(fill(900)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if p := b.TakeDatagram(); len(p) != 900 {
				t.Fatalf("%d bytes taken", len(p))
			}
		}
		server.mu.Lock()
		defer server.mu.Unlock()
		if server.loose != 0 {
			t.Errorf("%d bytes of datagrams count as unread", server.loose)
		}
	})
}

