package inbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// ErrCorrupt is matched when content did not arrive as it was sent.
var ErrCorrupt = errors.New("the content does not match its BLAKE3")

// syncEvery is how much time's content a power cut may cost.
const syncEvery = 2 * time.Second

// begunEvery is how many bytes are written before the disk is asked to begin with
// them: few enough that little is left for the sync at the end.
const begunEvery = 8 << 20

// Claim says for whom an incomplete file is opened.
type Claim struct {
	// Owner is who sends it: nobody else's content is continued.
	Owner string
	// Stranger says that the owner has no room of its own.
	Stranger bool
	// Session tells claims of one sender apart: a later one of the same session
	// waits until the earlier is closed.
	Session any
	// Yield is called, at most a few times and from any goroutine, when a claim
	// of another session wants the file: the sender has come back, and this
	// session is a dead one's. It must lead to Close.
	Yield func()
}

// Meta is what a file has besides name and content.
type Meta struct {
	Modified   time.Time // zero, before 1970 or more than a day ahead: now
	Executable bool
	Replace    bool // an existing file of that name is replaced
}

// file is what a Part asks of its file.
type file interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// Part is an incomplete file. Its methods must not run concurrently. It must be
// closed, unless it was kept.
type Part struct {
	f     *Folder
	claim Claim
	name  string // of the finished file
	part  string // of the incomplete one
	size  int64

	d       digest.Digest // of what is verified and written
	content *os.File      // nil: not made yet
	out     file          // content, as tests see it
	state   *os.File      // nil: there is no mark yet
	fresh   bool          // content was made by this Part
	left    bool          // it was closed, and can be continued
	missing atomic.Int64

	synced  time.Time
	syncing sync.WaitGroup
	syncErr atomic.Pointer[error] // of a sync in the background
	begun   int64                 // up to where the disk was asked to begin
	asking  atomic.Bool           // it is being asked
	closed  chan struct{}
}

// Resume opens the file of that name and size, a path of Clean, which that owner
// sends, with whatever is there of it already. It waits for an earlier claim to
// close and hashes what is there, until ctx ends. The error matches ErrBusy, or is
// the file system's.
func (f *Folder) Resume(ctx context.Context, claim Claim, name string, size int64) (*Part, error) {
	p := &Part{f: f, claim: claim, name: name, part: partName(claim.Owner, name), size: size, synced: time.Now(), closed: make(chan struct{})}
	if err := f.hold(ctx, p); err != nil {
		return nil, err
	}
	if err := p.load(ctx); err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// Reserve checks that the disk has room for the rest, and counts it as taken.
// The error matches ErrNoSpace.
func (p *Part) Reserve() error {
	err := p.f.Fits(p.size-p.d.Len(), p.claim.Stranger)
	if err == nil {
		p.missing.Store(p.size - p.d.Len())
	}
	return err
}

// hold waits until nobody else of this process has the file open.
func (f *Folder) hold(ctx context.Context, p *Part) error {
	for {
		f.mu.Lock()
		other := f.held[p.part]
		if other == nil {
			f.held[p.part] = p
		}
		f.mu.Unlock()
		if other == nil {
			return nil
		}
		if other.claim.Session != p.claim.Session && other.claim.Yield != nil {
			other.claim.Yield()
		}
		select {
		case <-other.closed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Len returns how many bytes are verified.
func (p *Part) Len() int64 { return p.d.Len() }

// Sum returns the BLAKE3 of those.
func (p *Part) Sum() digest.Sum { return p.d.Sum() }

// Name returns the path of the incomplete file; empty if there is nothing that
// could be continued.
func (p *Part) Name() string {
	if p.state == nil && !p.left {
		return ""
	}
	return p.part
}

func (p *Part) stateName() string { return p.part + stateSuffix }

// load takes over what a former attempt left, as far as a mark fits it.
func (p *Part) load(ctx context.Context) error {
	for _, name := range []string{p.part, p.stateName()} {
		if st, err := p.f.root.Lstat(name); err != nil || !st.Mode().IsRegular() {
			return nil //nolint:nilerr // nothing to go on with
		}
	}
	content, err := p.f.root.OpenFile(p.part, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	p.use(content)
	if err := lock(content); err != nil {
		return err
	}
	if p.state, err = p.f.root.OpenFile(p.stateName(), os.O_RDWR, 0); err != nil {
		return err
	}
	end, err := p.believe(ctx)
	if err != nil {
		return err
	}
	if p.d.Len() == 0 {
		p.drop()
		return nil
	}
	if _, err := p.state.Seek(end, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(p.state.Truncate(end), p.content.Truncate(p.d.Len()))
}

// believe hashes the content and returns where in the state the last mark that
// fits it ends. Nearly always that is the last mark there is, so it is tried
// first, without a stop.
func (p *Part) believe(ctx context.Context) (end int64, err error) {
	st, err := p.content.Stat()
	if err != nil {
		return 0, err
	}
	most := min(p.size, st.Size())
	var last mark
	if err := readMarks(p.state, most, func(m mark, e int64) error {
		last, end = m, e
		return nil
	}); err != nil || last.at == 0 {
		return 0, err
	}
	var d digest.Digest
	if err := d.Advance(ctx, io.NewSectionReader(p.content, 0, most), last.at); err != nil {
		return 0, err
	}
	if d.Sum() == last.sum {
		p.d = d
		return end, nil
	}
	d, end = digest.Digest{}, 0
	stop := errors.New("a mark that does not fit")
	if _, err := p.state.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	err = readMarks(p.state, most, func(m mark, e int64) error {
		if err := d.Advance(ctx, io.NewSectionReader(p.content, d.Len(), most), m.at-d.Len()); err != nil {
			return err
		}
		if d.Sum() != m.sum {
			return stop
		}
		p.d, end = d, e
		return nil
	})
	if err == stop {
		err = nil
	}
	return end, err
}

func (p *Part) use(content *os.File) {
	p.content, p.out = content, content
	if p.f.wrap != nil {
		p.out = p.f.wrap(content)
	}
}

// Restart forgets all that is there.
func (p *Part) Restart() {
	if p.drop(); p.missing.Load() > 0 {
		p.missing.Store(p.size)
	}
}

// drop removes the files, whatever they are.
func (p *Part) drop() {
	p.closeFiles()
	p.d, p.fresh, p.begun = digest.Digest{}, false, 0
	_ = p.f.root.Remove(p.part)
	_ = p.f.root.Remove(p.stateName())
}

// create makes the files anew: what has no mark that fits is never written to.
func (p *Part) create() error {
	if old, err := p.f.root.OpenFile(p.part, os.O_RDWR|syscall.O_NONBLOCK, 0); err == nil {
		err = lock(old)
		_ = old.Close()
		if err != nil {
			return err
		}
	}
	p.drop()
	if err := p.f.Mkdir(path.Dir(p.name)); err != nil {
		return err
	}
	content, err := p.f.root.OpenFile(p.part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	p.use(content)
	p.fresh = true
	return lock(content)
}

// Write adds the next piece of the content, whose BLAKE3 with all before it is
// sum. Once it returns nil, the piece is verified and will be found by Resume.
// The error matches ErrCorrupt, or is the disk's; what was there before remains.
func (p *Part) Write(piece []byte, sum digest.Sum) error {
	if err := p.syncErr.Load(); err != nil {
		return *err
	}
	at := p.d.Len()
	if int64(len(piece)) > p.size-at {
		return fmt.Errorf("%w: more than the %d bytes announced", ErrCorrupt, p.size)
	}
	if p.content == nil {
		if err := p.create(); err != nil {
			return err
		}
	}
	written := make(chan error, 1)
	go func() { written <- p.writeAt(piece, at) }()
	d := p.d
	_, _ = d.Write(piece)
	fits := d.Sum() == sum
	if err := <-written; err != nil {
		return err
	}
	if !fits {
		return fmt.Errorf("%w: at byte %d it is %x, sent was %x", ErrCorrupt, d.Len(), d.Sum(), sum)
	}
	if err := p.mark(mark{d.Len(), sum}); err != nil {
		return err
	}
	p.d = d
	p.missing.Store(p.size - d.Len())
	if time.Since(p.synced) >= syncEvery {
		p.syncing.Wait()
		p.synced = time.Now()
		p.syncing.Go(p.sync)
	}
	p.begin()
	return nil
}

// begin has the disk begin, beside the writes: it may take its time.
func (p *Part) begin() {
	from, n := p.begun, p.d.Len()-p.begun
	if n < begunEvery || !p.asking.CompareAndSwap(false, true) {
		return
	}
	content := p.content
	p.begun += n
	p.syncing.Go(func() {
		defer p.asking.Store(false)
		writeBack(content, from, n)
	})
}

// writeAt writes a piece; one of zeros becomes a hole.
func (p *Part) writeAt(piece []byte, at int64) error {
	if len(piece) >= 4096 && len(bytes.TrimLeft(piece, "\x00")) == 0 {
		return p.out.Truncate(at + int64(len(piece)))
	}
	_, err := p.out.WriteAt(piece, at)
	return err
}

// mark notes that the content fits so far. A file of one piece needs no mark.
func (p *Part) mark(m mark) error {
	if p.state == nil {
		if m.at == p.size {
			return nil
		}
		s, err := openMarks(p.f.root, p.stateName())
		if err != nil {
			return err
		}
		p.state = s
	}
	_, err := p.state.Write(m.appendTo(nil))
	return err
}

// sync runs beside the writes.
func (p *Part) sync() {
	err := p.out.Sync()
	if p.state != nil {
		err = errors.Join(err, p.state.Sync())
	}
	if err != nil {
		p.syncErr.CompareAndSwap(nil, &err)
	}
}

// Keep gives the complete file its name, or the next that is free, and returns
// it: once it has returned, a power cut does not undo it. The Part is closed. On
// an error the incomplete file remains.
func (p *Part) Keep(m Meta) (name string, err error) {
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	if p.content == nil || p.d.Len() != p.size {
		return "", fmt.Errorf("%w: it has %d of %d bytes", ErrCorrupt, p.d.Len(), p.size)
	}
	p.syncing.Wait()
	if err := p.finish(m); err != nil {
		return "", err
	}
	if mine, err := p.isMine(); !mine {
		return "", fmt.Errorf("%q was moved or replaced while it was received: %w", p.part, err)
	}
	p.f.note(p.claim, p.name, p.size, p.d.Sum()) // before: a kill leaves none that its sender would send twice
	if name, err = p.f.place(p.part, p.name, m.Replace); err != nil {
		return "", err
	}
	_ = p.f.root.Remove(p.stateName()) // one that remains has no content, and goes next time
	err = p.f.syncs.sync(p.f.root, path.Dir(p.name))
	p.closeFiles()
	p.release()
	return name, err
}

// isMine reports whether the name is still that of this Part's file.
func (p *Part) isMine() (bool, error) {
	st, err := p.content.Stat()
	if err != nil {
		return false, err
	}
	there, err := p.f.root.Lstat(p.part)
	if err != nil {
		return false, err
	}
	return os.SameFile(st, there), fs.ErrNotExist
}

// finish has the content on the disk, with what goes with it.
func (p *Part) finish(m Meta) error {
	if m.Executable {
		if st, err := p.content.Stat(); err == nil {
			_ = p.content.Chmod(st.Mode() | st.Mode()&0o444>>2) // not every file system has it
		}
	}
	if !m.Modified.IsZero() && m.Modified.Unix() >= 0 && time.Until(m.Modified) < 24*time.Hour {
		_ = p.f.root.Chtimes(p.part, time.Time{}, m.Modified)
	}
	return p.out.Sync()
}

// Close leaves what is verified for another time, and removes what could not be
// continued. It is safe to call after Keep, and twice.
func (p *Part) Close() error {
	select {
	case <-p.closed:
		return nil
	default:
	}
	p.syncing.Wait()
	switch {
	case p.fresh && p.state == nil:
		p.drop()
	case p.content != nil:
		p.left = true
		p.sync()
	}
	p.closeFiles()
	p.release()
	if err := p.syncErr.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *Part) closeFiles() {
	p.syncing.Wait()
	if p.content != nil {
		_ = p.content.Close()
	}
	if p.state != nil {
		_ = p.state.Close()
	}
	p.content, p.out, p.state = nil, nil, nil
}

func (p *Part) release() {
	p.f.mu.Lock()
	delete(p.f.held, p.part)
	p.f.mu.Unlock()
	close(p.closed)
}
