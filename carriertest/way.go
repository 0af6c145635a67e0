package carriertest

import (
	"context"
	"errors"
	"net"
	"time"

	"peerlink/channel"
)

// way is a way in which a channel ends after its writer's Write has returned.
type way struct {
	name string
	// byReader: the side that ends is the reader's, else the writer's.
	byReader bool
	// cuts: the side that ends gives up bytes, and knows it. Otherwise bytes are
	// lost only if end returns an error.
	cuts bool
	// first is what the writer does before the end; nil: nothing.
	first func(*channel.Socket) error
	// end ends.
	end func(ctx context.Context, s *stage) error
	// clean: the writer ends its direction, so that io.EOF is its true end.
	clean bool
	// hears is how the writer learns what became of its bytes; nil: it does not.
	hears func(*channel.Socket) error
	// play is all of it, for ways that are unlike the others.
	play func(ctx context.Context, c *cell) (verdict, fault string)
	// paces are the readers; nil: all.
	paces []pace
}

// stage is what a way ends.
type stage struct {
	ender, other   *device
	writer, reader *channel.Socket
	listener       net.Listener // that has accepted the channel
	patient        bool         // the reader goes on reading while the end is under way
}

// Times of Shutdown.
const (
	// enough is longer than any cell takes.
	enough = patience
	// little is for a reader that reads only after the end.
	little = 200 * time.Millisecond
)

// ways are the table's rows.
var ways = []way{
	{name: "Close", clean: true, end: func(_ context.Context, s *stage) error { return s.writer.Close() }},
	{name: "CloseWrite", clean: true, hears: answer, end: func(_ context.Context, s *stage) error { return s.writer.CloseWrite() }},
	{name: "Reset", cuts: true, end: func(_ context.Context, s *stage) error { return s.writer.Reset(channel.CodeUser) }},
	{name: "Close by the reader", byReader: true, cuts: true, hears: refusal, end: func(_ context.Context, s *stage) error { return s.reader.Close() }},
	{name: "CloseLink", hears: answer, end: closeLink},
	{name: "CloseLink by the reader", byReader: true, cuts: true, hears: refusal, end: closeLink},
	{name: "CloseLink after CloseWrite", clean: true, hears: answer, first: (*channel.Socket).CloseWrite, end: closeLink},
	{name: "CloseConnectionsWith", hears: answer, end: closeConnections},
	{name: "manager Close", hears: answer, end: func(_ context.Context, s *stage) error { return s.ender.Close() }},
	{name: "manager Close by the reader", byReader: true, cuts: true, hears: refusal, end: func(_ context.Context, s *stage) error { return s.ender.Close() }},
	{name: "manager Close after Close", clean: true, first: (*channel.Socket).Close, end: func(_ context.Context, s *stage) error { return s.ender.Close() }},
	{name: "account Close", hears: answer, end: closeAccount},
	{name: "account Close after CloseWrite", clean: true, hears: answer, first: (*channel.Socket).CloseWrite, end: closeAccount},
	{name: "Shutdown", clean: true, hears: answer, first: (*channel.Socket).CloseWrite, end: shutdown},
	{name: "Shutdown by the reader", byReader: true, clean: true, hears: answer, first: (*channel.Socket).CloseWrite, end: shutdown},
	{name: "Shutdown after Close", clean: true, first: (*channel.Socket).Close, end: shutdown},
	{name: "Shutdown without time", clean: true, hears: answer, first: (*channel.Socket).CloseWrite, end: shutdownNow},
	{name: "Shutdown without time, open", hears: answer, end: shutdownNow},
	{name: "listener closed, accepted", byReader: true, clean: true, hears: answer, end: closeListener},
	{name: "listener closed, queued", play: queued(func(_ context.Context, _ *device, l net.Listener) error { return l.Close() }), paces: []pace{absent}},
	{name: "manager Close, queued", play: queued(func(_ context.Context, d *device, _ net.Listener) error { return d.Close() }), paces: []pace{absent}},
	{name: "Shutdown, queued", play: queued(func(ctx context.Context, d *device, _ net.Listener) error { return d.Shutdown(ctx) }), paces: []pace{absent}},
	{name: "memory limit reached", play: crowded},
}

// answer waits for the far end's: io.EOF says that it has read all.
func answer(c *channel.Socket) error {
	_, err := c.Read(make([]byte, 1))
	if err == nil {
		err = errors.New("a byte that nobody wrote")
	}
	return err
}

// refusal writes on until the far end does not take more.
func refusal(c *channel.Socket) error {
	for {
		if _, err := c.Write(make([]byte, 4<<10)); err != nil {
			return err
		}
	}
}

func closeLink(_ context.Context, s *stage) error {
	for l := range s.ender.Links() {
		return s.ender.CloseLink(l.ID)
	}
	return errors.New("there is no link")
}

func closeConnections(_ context.Context, s *stage) error {
	if n := s.ender.CloseConnectionsWith(s.other.id.DeviceID()); n != 1 {
		return errors.New("not one link was closed")
	}
	return nil
}

func closeAccount(_ context.Context, s *stage) error {
	return errors.Join(s.ender.Close(), s.ender.release())
}

func shutdown(ctx context.Context, s *stage) error {
	left := enough
	if !s.patient {
		left = little
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	return s.ender.Shutdown(ctx)
}

func shutdownNow(ctx context.Context, s *stage) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return s.ender.Shutdown(ctx)
}

func closeListener(_ context.Context, s *stage) error {
	return errors.Join(s.listener.Close(), s.writer.CloseWrite())
}
