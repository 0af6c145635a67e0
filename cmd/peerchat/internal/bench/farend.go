package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/localipc"
	"peerlink/multiplex"
	"peerlink/shm"
	"peerlink/tlssock"
)

// FarEnd is the other process of the rows that need one: Config.FarEnd makes a
// command that calls it, with its standard input and output. It makes a device
// and a runtime folder of its own, serves whoever connects over any carrier, and
// returns when in or ctx ends, having removed the folder.
func FarEnd(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	// If the near end is gone, writing to it must fail and not end this process,
	// which has a folder to remove.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	me, err := identity.Generate("far end")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plb")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	d := &farDevice{}
	defer d.close()
	defer cancel()
	hello, err := d.listen(ctx, me, dir)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(hello); err != nil {
		return err
	}
	asked := make(chan error)
	go readQuestions(ctx, in, asked)
	for {
		select {
		case err := <-asked:
			if err != nil {
				return ignoreEOF(err)
			}
			if err := enc.Encode(usedNow()); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readQuestions reads until in ends; it may outlive the far end by a read that
// nobody can interrupt.
func readQuestions(ctx context.Context, in io.Reader, asked chan<- error) {
	dec := json.NewDecoder(in)
	for {
		var q farAsked
		err := dec.Decode(&q)
		select {
		case asked <- err:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func usedNow() farUsed {
	if t := cpuTime(); !math.IsNaN(t) {
		return farUsed{CPU: &t}
	}
	return farUsed{}
}

// shmHere says whether this system has shared memory.
const shmHere = runtime.GOOS == "linux" || runtime.GOOS == "darwin"

// farDevice is the device of the far end.
type farDevice struct {
	far     far
	closers []func() error
	life    life.Group // of what accepts, and of the connections
}

// acceptor is a carrier's listener.
type acceptor interface {
	Accept(ctx context.Context) (net.Conn, identity.Peer, error)
	Close() error
}

// listen opens all carriers that this system has.
func (d *farDevice) listen(ctx context.Context, me *identity.Identity, dir string) (farHello, error) {
	hello := farHello{Device: me.DeviceID(), Dir: dir}
	direct, err := tlssock.Listen(ctx, tlssock.Config{Identity: me}, "127.0.0.1:0")
	if err != nil {
		return hello, err
	}
	hello.TCP = direct.Addrs()[0].String()
	d.accept(ctx, direct)
	cfg := localipc.Config{Identity: me, Dir: dir}
	if shmHere {
		cfg.Services = []string{shm.Service}
	}
	unix, err := localipc.Listen(ctx, cfg)
	if err != nil {
		return hello, err
	}
	d.accept(ctx, unix)
	if !shmHere {
		return hello, nil
	}
	mem, err := shm.Listen(shm.Config{}, unix)
	if err != nil {
		return hello, err
	}
	d.accept(ctx, mem)
	return hello, nil
}

// accept serves the connections of a listener until it is closed.
func (d *farDevice) accept(ctx context.Context, l acceptor) {
	d.closers = append(d.closers, l.Close)
	d.life.Go(func(context.Context) {
		for {
			conn, _, err := l.Accept(ctx)
			if err != nil {
				return
			}
			if !d.life.Go(func(ctx context.Context) { d.serve(ctx, conn) }) {
				_ = conn.Close()
			}
		}
	})
}

// serve finds out whether a connection is a stream itself or carries channels.
// The end of ctx closes it.
func (d *farDevice) serve(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		_ = conn.Close()
		return
	}
	if task(first[0]) != taskLink {
		d.far.do(conn, task(first[0]))
		return
	}
	link := multiplex.Server(conn, multiplex.Config{})
	defer link.Close()
	for {
		r, err := link.Accept(context.Background()) // ends with the link
		if err != nil {
			return
		}
		if c, err := r.Accept(); err == nil {
			d.far.serve(c)
		}
	}
}

// close ends all that was begun and waits for it.
func (d *farDevice) close() {
	d.life.End()
	for _, end := range slices.Backward(d.closers) {
		_ = end()
	}
	d.far.close()
	d.life.Wait()
}
