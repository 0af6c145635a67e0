package carriertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/channel"
	"peerlink/multiplex"
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
	// clean: the writer ends its direction, so that io.EOF is its true end.
	clean bool
	// hears is how the writer learns what became of its bytes; nil: it does not.
	hears func(*channel.Socket) error
	// end ends.
	end func(ctx context.Context, s *stage) error
	// play is all of it, for ways that are unlike the others.
	play func(ctx context.Context, c *cell, w *world) ([]outcome, error)
	// paces are the readers; nil: all.
	paces []pace
	// link are the bounds of the ending side's links; nil: the defaults.
	link func() multiplex.Config
	// processes: two processes have to meet.
	processes bool
}

// ways are the rows of the table.
var ways = []way{
	{name: "Close", clean: true, end: func(_ context.Context, s *stage) error { return s.writer.Close() }},
	{name: "Close by the reader", byReader: true, cuts: true, hears: refusal, end: func(_ context.Context, s *stage) error { return s.reader.Close() }},
	{name: "CloseWrite", clean: true, hears: answer, end: func(_ context.Context, s *stage) error { return s.writer.CloseWrite() }},
	{name: "Reset", cuts: true, end: func(_ context.Context, s *stage) error { return s.writer.Reset(channel.CodeUser) }},
	{name: "CloseLink", hears: answer, end: closeLink},
	{name: "CloseLink by the reader", byReader: true, cuts: true, hears: refusal, end: closeLink},
	{name: "CloseLink after CloseWrite", first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: closeLink},
	{name: "CloseConnectionsWith", hears: answer, end: closeConnections},
	{name: "manager Close", hears: answer, end: closeManager},
	{name: "manager Close by the reader", byReader: true, cuts: true, hears: refusal, end: closeManager},
	{name: "manager Close after Close", first: (*channel.Socket).Close, clean: true, end: closeManager},
	{name: "account Close", hears: answer, end: closeAccount},
	{name: "account Close after CloseWrite", first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: closeAccount},
	{name: "CloseLink without time", hears: answer, end: closeLink, paces: []pace{absent}, link: noTime},
	{name: "manager Close without time", first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: closeManager, paces: []pace{absent}, link: noTime},
	{name: "account Close without time", hears: answer, end: closeAccount, paces: []pace{absent}, link: noTime},
	{name: "Shutdown", first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: shutdown},
	{name: "Shutdown by the reader", byReader: true, first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: shutdown},
	{name: "Shutdown after Close", first: (*channel.Socket).Close, clean: true, end: shutdown},
	{name: "Shutdown without time", first: (*channel.Socket).CloseWrite, clean: true, hears: answer, end: shutdownNow},
	{name: "Shutdown without time, open", hears: answer, end: shutdownNow},
	{name: "listener closed, accepted", byReader: true, clean: true, hears: answer, end: closeListener},
	{name: "CloseLink, queued", clean: true, play: queued, end: closeLink, paces: []pace{absent}},
	{name: "listener closed, queued", byReader: true, cuts: true, play: queued, end: func(_ context.Context, s *stage) error { return s.listener.Close() }, paces: []pace{absent}},
	{name: "manager Close, queued", byReader: true, cuts: true, play: queued, end: closeManager, paces: []pace{absent}},
	{name: "Shutdown, queued", byReader: true, cuts: true, play: queued, end: shutdown, paces: []pace{absent}},
	{name: "memory limit reached", clean: true, play: crowded, link: smallMemory},
	{name: "memory budget reached", clean: true, play: crowded, link: smallBudget},
	{name: "process killed", cuts: true, play: killed, paces: []pace{fast}, link: quickBeacons, processes: true},
}

// stage is what a way ends.
type stage struct {
	ender, other   *device
	writer, reader *channel.Socket
	listener       net.Listener // of the channel
	time           time.Duration
}

// Times of Shutdown: longer than anything takes, and for a reader that reads only
// after the end.
const (
	enough = patience
	little = 200 * time.Millisecond
)

// answer waits for the far end's: io.EOF says that it has read all.
func answer(c *channel.Socket) error {
	_, err := c.Read(make([]byte, 1))
	if err == nil {
		return errors.New("a byte that nobody wrote")
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

// noTime are the bounds of links that end before an answer comes, unless the machine
// is busy.
func noTime() multiplex.Config {
	return multiplex.Config{CloseTimeout: time.Nanosecond, BeaconInterval: -1}
}

func closeLink(_ context.Context, s *stage) error {
	for l := range s.ender.Links() {
		return s.ender.CloseLink(l.ID)
	}
	return errors.New("there is no link")
}

func closeConnections(_ context.Context, s *stage) error {
	if n := s.ender.CloseConnectionsWith(s.other.id.DeviceID()); n != 1 {
		return fmt.Errorf("%d links were closed", n)
	}
	return nil
}

func closeManager(_ context.Context, s *stage) error { return s.ender.Close() }

func closeAccount(_ context.Context, s *stage) error {
	defer s.ender.release()
	return s.ender.Close()
}

func shutdown(ctx context.Context, s *stage) error {
	ctx, cancel := context.WithTimeout(ctx, s.time)
	defer cancel()
	return s.ender.Shutdown(ctx)
}

func shutdownNow(ctx context.Context, s *stage) error {
	return s.ender.Shutdown(ended(ctx))
}

func closeListener(_ context.Context, s *stage) error {
	return errors.Join(s.listener.Close(), s.writer.CloseWrite())
}
