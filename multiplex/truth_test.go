package multiplex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// ways are how a writer ends a channel of which it has written all.
var ways = map[string]func(*channel.Socket){
	"ended":  func(c *channel.Socket) { _ = c.CloseWrite() },
	"closed": func(c *channel.Socket) { _ = c.Close() },
	"open":   func(*channel.Socket) {},
}

// More is written than may wait unread, and nothing is read for a while. What a
// Read then returns is all and the true end, or an error that the writer gets, too.
//
// case: E1
func TestEndsAreTrueWhenMemoryRunsOut(t *testing.T) {
	for way, end := range ways {
		for bound, cfg := range map[string]Config{
			"link":                    {},
			"budget":                  {MaxBuffered: 1 << 30, Budget: NewBudget(8 << 20)},
			"link to an older peer":   {plain: true},
			"budget with older peers": {MaxBuffered: 1 << 30, Budget: NewBudget(8 << 20), plain: true},
		} {
			t.Run(way+", bound of the "+bound, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { endsAreTrue(t, cfg, end, 300, 64<<10) })
			})
		}
	}
}

// pairOf is the two ends of a channel of which size bytes were written, and how
// that went.
type pairOf struct {
	near, there *channel.Socket
	written     error
}

// fillUp opens n channels, writes size bytes to each and ends it. Requests that
// are declined are left out: both sides know of those.
func fillUp(t *testing.T, client, server *Socket, end func(*channel.Socket), n, size int) (ps []*pairOf) {
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		near, err := client.OpenEarly(ctx, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r, err := server.Accept(ctx); err == nil {
			there, err := r.Accept()
			if err != nil {
				t.Fatal(err)
			}
			p := &pairOf{near: near, there: there}
			ps = append(ps, p)
			go func() {
				if _, p.written = near.Write(random(byte(i), size)); p.written == nil {
					end(near)
				}
			}()
			synctest.Wait()
		} else if _, err := near.Read(make([]byte, 1)); !errors.Is(err, ErrDeclined) {
			t.Fatalf("channel %d was not offered, and its opener has heard %v", i, err)
		}
		cancel()
	}
	return ps
}

func endsAreTrue(t *testing.T, cfg Config, end func(*channel.Socket), n, size int) {
	client, server := pipe(t, cfg)
	ps := fillUp(t, client, server, end, n, size)
	time.Sleep(time.Second)
	whole := 0
	for _, p := range ps {
		name := p.there.URI()
		i, _ := strconv.Atoi(name)
		_ = p.there.SetReadDeadline(time.Now().Add(time.Second))
		got, err := io.ReadAll(p.there)
		synctest.Wait()
		re, reset := errors.AsType[*channel.ResetError](err)
		switch {
		case bytes.Equal(got, random(byte(i), size)) && !reset:
			whole++
		case err == nil:
			t.Errorf("channel %s: %d of %d bytes and a clean end", name, len(got), size)
		case !reset || re.Code != channel.CodeResource:
			t.Errorf("channel %s: %d bytes, %v", name, len(got), err)
		}
		if !reset {
			continue
		}
		_ = p.near.SetReadDeadline(time.Now().Add(time.Second))
		_, err = p.near.Read(make([]byte, 1))
		if _, told := errors.AsType[*channel.ResetError](err); !told && p.written == nil && !errors.Is(err, net.ErrClosed) { // closed, it can hear of nothing
			t.Errorf("channel %s was reset, and its writer has heard %v", name, err)
		}
	}
	if whole < 50 {
		t.Errorf("%d of %d arrived whole", whole, len(ps))
	}
}
