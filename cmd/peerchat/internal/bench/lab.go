package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/localipc"
	"peerlink/multiplex"
	"peerlink/shm"
	"peerlink/tlssock"
)

// What the two processes say to each other over the far end's standard input
// and output, as JSON values. The far end begins, and ends when its input does.
type (
	// farHello says who the far end is and where it listens.
	farHello struct {
		Device identity.DeviceID `json:"device"`
		Dir    string            `json:"dir"` // its runtime folder
		TCP    string            `json:"tcp"`
	}
	// farAsked asks for the far end's CPU time.
	farAsked struct{}
	// farUsed is its CPU time in seconds; absent where the system does not tell.
	farUsed struct {
		CPU *float64 `json:"cpu"`
	}
)

// lab is the near end of measures between two processes. It owns the far end's
// process.
type lab struct {
	me      *identity.Identity
	hello   farHello
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	said    tail
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
	closing sync.Once

	mu  sync.Mutex // of one question and its answer
	enc *json.Encoder
	dec *json.Decoder
}

// tail keeps the end of what a process said, for when it fails.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(len(t.b)-1024, 0):]
	return len(p), nil
}

const (
	// setUp is how long the far end may take to say hello.
	setUp = 20 * time.Second
	// tearDown is how long it may take to end by itself.
	tearDown = 3 * time.Second
	// lastBreath is how long after a failure the system may take to tell that the
	// far end has ended, which is why.
	lastBreath = 200 * time.Millisecond
)

// errNoFarEnd is the error of a Config without FarEnd.
var errNoFarEnd = errors.New("bench: Config.FarEnd is missing: these rows need a second process")

// newLab starts the far end. It ends with close, and is killed if it does not.
func newLab(ctx context.Context, farEnd func() (*exec.Cmd, error)) (*lab, error) {
	if farEnd == nil {
		return nil, errNoFarEnd
	}
	me, err := identity.Generate("near end")
	if err != nil {
		return nil, err
	}
	cmd, err := farEnd()
	if err != nil {
		return nil, err
	}
	l := &lab{me: me, cmd: cmd, ended: make(chan struct{})}
	// Pipes of our own: Wait must not close one before its last word is read.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.out, cmd.Stdout, cmd.Stderr = r, w, &l.said
	cmd.WaitDelay = tearDown
	l.in, err = cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the far end: %w", err), r.Close())
	}
	go func() {
		defer close(l.ended)
		l.err = cmd.Wait()
	}()
	l.enc, l.dec = json.NewEncoder(l.in), json.NewDecoder(io.LimitReader(r, 1<<20))
	hctx, cancel := context.WithTimeoutCause(ctx, setUp, fmt.Errorf("the far end's process said nothing for %v", setUp))
	defer cancel()
	// Nobody knows its folder yet: it must be given time to remove it itself.
	defer context.AfterFunc(hctx, l.close)()
	if err := l.dec.Decode(&l.hello); err != nil {
		l.close()
		return nil, l.why(hctx, err)
	}
	return l, nil
}

// why is the reason of a failure: that the time is up, that the far end has
// ended, or err itself.
func (l *lab) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errFarEnded) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	late := time.NewTimer(lastBreath)
	defer late.Stop()
	select {
	case <-l.ended:
		return fmt.Errorf("%w: %w: %s (%w)", errFarEnded, cmp.Or(l.err, errors.New("exit status 0")), l.said.b, err)
	case <-late.C:
		return err
	}
}

// errFarEnded is the far end's process that is gone.
var errFarEnded = errors.New("the far end's process ended")

// close has the far end end, kills it if it does not, and removes what it
// could not remove itself. It may be called more than once.
func (l *lab) close() {
	l.closing.Do(func() {
		_ = l.in.Close()
		late := time.AfterFunc(tearDown, func() { _ = l.cmd.Process.Kill() })
		<-l.ended
		late.Stop()
		_ = l.out.Close()
		if l.hello.Dir != "" {
			_ = os.RemoveAll(l.hello.Dir)
		}
	})
}

// bounded runs one take, and ends it when ctx does, when it hangs, or when the
// far end has ended. Without success the far end is killed: whatever waits for
// it goes on.
func (l *lab) bounded(ctx context.Context, d time.Duration, take func(context.Context) (figures, error)) (figures, error) {
	limit := 10*d + hang
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	kept := context.AfterFunc(ctx, func() { _ = l.cmd.Process.Kill() })
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-l.ended:
			stop(errFarEnded)
		case <-done:
		}
	})
	f, err := take(ctx)
	close(done)
	wg.Wait()
	if err != nil {
		err = l.why(ctx, err)
	}
	kept()
	stop(nil)
	return f, err
}

// cpu is the CPU time of both processes so far, in seconds.
func (l *lab) cpu() (float64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var used farUsed
	if err := l.enc.Encode(farAsked{}); err != nil {
		return 0, fmt.Errorf("ask the far end: %w", err)
	}
	if err := l.dec.Decode(&used); err != nil {
		return 0, fmt.Errorf("answer of the far end: %w", err)
	}
	return cpuTime() + orNaN(used.CPU), nil
}

// local is who this end is on this machine.
func (l *lab) local() localipc.Config {
	return localipc.Config{Identity: l.me, Dir: l.hello.Dir}
}

// dial makes a connection. region is the size of shared memory, 0 the default.
func (l *lab) dial(ctx context.Context, carrier string, region int) (net.Conn, error) {
	to, unix := l.hello.Device, &localipc.Dialer{Config: l.local()}
	var conn net.Conn
	var err error
	switch carrier {
	case "unix":
		conn, _, err = unix.Dial(ctx, to)
	case "shm":
		conn, _, err = (&shm.Dialer{Local: unix, Config: shm.Config{RegionSize: region}}).Dial(ctx, to)
	case "tcp":
		d := &tlssock.Dialer{Config: tlssock.Config{Identity: l.me}}
		if err = d.Learn(to, l.hello.TCP); err == nil {
			conn, _, err = d.Dial(ctx, to)
		}
	default:
		err = fmt.Errorf("no carrier %q", carrier)
	}
	return conn, err
}

// link makes a connection and a multiplexed socket on it.
func (l *lab) link(ctx context.Context, carrier string, region int, cfg multiplex.Config) (*multiplex.Socket, error) {
	conn, err := l.dial(ctx, carrier, region)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{byte(taskLink)}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	m := multiplex.Client(conn, cfg)
	if err := m.Ready(ctx); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// over returns a pair whose streams go one way.
func (l *lab) over(ctx context.Context, w way) (*pair, error) {
	if !w.linked {
		r := &openConns{}
		return &pair{far: &far{}, closing: r.close, dial: func(ctx context.Context) (net.Conn, error) {
			return r.add(l.dial(ctx, w.carrier, 0))
		}}, nil
	}
	m, err := l.link(ctx, w.carrier, 0, multiplex.Config{})
	if err != nil {
		return nil, err
	}
	return &pair{far: &far{}, closing: func() { _ = m.Close() }, dial: func(ctx context.Context) (net.Conn, error) {
		return hidden(m.OpenEarly(ctx, "bench://"))
	}}, nil
}

// openConns are connections that end together.
type openConns struct {
	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func (o *openConns) add(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	o.conns = append(o.conns, conn)
	return conn, nil
}

func (o *openConns) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, c := range o.conns {
		_ = c.Close()
	}
}
