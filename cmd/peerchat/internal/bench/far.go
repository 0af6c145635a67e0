package bench

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"

	"peerlink/internal/life"
)

// task is the first byte of a stream: what the far end is to do with it after
// it has echoed that byte.
type task byte

const (
	taskOnce task = 'o' // close it when the opener has
	taskEcho task = 'e' // send messages of tripLen bytes back
	taskSink task = 's' // verify bulk and report
	taskHold task = 'h' // keep it open and read no more

	// Between processes:
	taskSample task = 'p' // as taskSink, but compare only samples of what follows the first phase
	taskIdle   task = 'i' // read until the opener has closed it
	taskLink   task = 'm' // of a connection: it carries channels
)

// far is the far end of a pair: it serves the streams that it is given. The
// zero value is ready.
type far struct {
	life life.Group // of what serves

	mu   sync.Mutex
	held []net.Conn
}

// serve begins to serve a stream and owns it from here on. After close it
// closes the stream.
func (f *far) serve(conn net.Conn) {
	if !f.life.Go(func(context.Context) { f.work(conn) }) {
		_ = conn.Close()
	}
}

func (f *far) work(conn net.Conn) {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		_ = conn.Close()
		return
	}
	f.do(conn, task(first[0]))
}

// do does a stream's task, of which it echoes the byte.
func (f *far) do(conn net.Conn, t task) {
	echoed := [1]byte{byte(t)}
	if t == taskHold && f.hold(conn) {
		_, _ = conn.Write(echoed[:]) // the opener misses it where it fails
		return
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(echoed[:]); err != nil {
		return
	}
	switch t {
	case taskOnce:
		_, _ = conn.Read(echoed[:])
	case taskEcho:
		echo(conn)
	case taskSink:
		sink(conn, &checker{want: newBlock()})
	case taskSample:
		sink(conn, &checker{want: newBlock(), samples: true})
	case taskIdle:
		_, _ = io.Copy(io.Discard, conn)
	}
}

func echo(conn net.Conn) {
	var m [tripLen]byte
	for {
		if _, err := io.ReadFull(conn, m[:]); err != nil {
			return
		}
		if _, err := conn.Write(m[:]); err != nil {
			return
		}
	}
}

// hold keeps conn until release; false if there is nobody to release it.
func (f *far) hold(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Ended() {
		return false
	}
	f.held = append(f.held, conn)
	return true
}

// expect makes room for n held streams, so that it is not counted as theirs.
func (f *far) expect(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = make([]net.Conn, 0, n)
}

// holding returns the streams that are held, in the order they came.
func (f *far) holding() []net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.held)
}

// release closes the streams that are held.
func (f *far) release() {
	f.mu.Lock()
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, c := range held {
		_ = c.Close()
	}
}

// close releases what is held, for ever, and waits for those who serve. The
// connections beneath are closed before.
func (f *far) close() {
	f.life.End()
	f.release()
	f.life.Wait()
}
