package inbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// ErrNoSpace is matched when a file does not fit on the disk.
var ErrNoSpace = errors.New("not enough disk space")

// ErrBusy is matched when another process receives the same file.
var ErrBusy = errors.New("another process is receiving this file")

// spare is what must stay free on the disk, in bytes: room for states, names
// and whatever else the system writes.
const spare = 4 << 20

// maxTwins is how many files of one name are compared with one that is offered.
const maxTwins = 16

// Folder is a folder for received files. Its methods may be called
// concurrently.
type Folder struct {
	root *os.Root
	dir  string // where root is
	// wrap, if not nil, stands between a Part and its file: tests put failing
	// disks there.
	wrap func(file) file
	// free tells how many bytes the disk has room for.
	free func(*os.Root) (int64, error)

	syncs dirSyncs
	sent  memory

	mu   sync.Mutex
	held map[string]*Part // by path of the incomplete file
}

// New returns a Folder in root, which Close closes. It remembers what was sent into
// it until then, or beyond (Remember).
func New(root *os.Root) *Folder {
	f := &Folder{root: root, dir: root.Name(), free: freeSpace, held: map[string]*Part{}}
	if abs, err := filepath.Abs(f.dir); err == nil {
		f.dir = abs
	}
	f.sent.members = shelf{most: memberKeys, known: map[key]struct{}{}}
	f.sent.strangers = shelf{most: strangerKeys, known: map[key]struct{}{}}
	return f
}

// Open returns the folder dir, making it if need be.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder for files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("folder for files: %w", err)
	}
	return New(root), nil
}

// Close closes the folder. Parts must be closed before.
func (f *Folder) Close() error {
	return errors.Join(f.root.Close(), f.sent.members.close(), f.sent.strangers.close())
}

// Mkdir makes the folder name, a path of Clean, and those above it.
func (f *Folder) Mkdir(name string) error {
	if err := f.root.MkdirAll(name, 0o777); err != nil {
		return fmt.Errorf("make the folder %q: %w", name, err)
	}
	return nil
}

// Missing returns how many folders Mkdir would make.
func (f *Folder) Missing(name string) (n int) {
	for ; name != "."; name = path.Dir(name) {
		if _, err := f.root.Lstat(name); err == nil {
			break
		}
		n++
	}
	return n
}

// Has reports whether that owner has sent something of that name before, or
// something into a folder of that name, whole or in part. What others have sent,
// or was here before, has no part in the answer.
func (f *Folder) Has(owner, name string) bool {
	_, err := f.root.Lstat(partName(owner, name))
	return err == nil || f.known(f.key(owner, top(name)))
}

// top is the first element of a path.
func top(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

// Fits returns an error that matches ErrNoSpace unless size more bytes have
// room beside all that is under way. What strangers have announced, and not sent,
// takes room from strangers alone: to announce costs nothing.
func (f *Folder) Fits(size int64, stranger bool) error {
	free, err := f.free(f.root)
	if err != nil {
		return nil //nolint:nilerr // a system that cannot tell
	}
	f.mu.Lock()
	for _, p := range f.held {
		if stranger || !p.claim.Stranger {
			free -= p.missing.Load()
		}
	}
	f.mu.Unlock()
	if free-spare < size {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", ErrNoSpace, size, max(0, free-spare))
	}
	return nil
}

// Twins returns the files of that name and size that are there: name, "name
// (1)" and so on. There are none unless that owner has sent one of that name and
// size: it learns nothing of others.
func (f *Folder) Twins(owner, name string, size int64) (twins []string) {
	if !f.known(f.key(owner, name, size)) {
		return nil
	}
	dir, base := path.Split(name)
	for i := range maxTwins {
		twin := dir + numbered(base, i)
		st, err := f.root.Lstat(twin)
		if err != nil {
			return twins
		}
		if st.Mode().IsRegular() && st.Size() == size {
			twins = append(twins, twin)
		}
	}
	return twins
}

// Sum hashes size bytes of a file. It may take as long as the disk needs.
func (f *Folder) Sum(ctx context.Context, name string, size int64) (digest.Sum, error) {
	in, err := f.root.Open(name)
	if err != nil {
		return digest.Sum{}, err
	}
	defer in.Close()
	var d digest.Digest
	err = d.Advance(ctx, in, size)
	return d.Sum(), err
}

// partName is the path of an owner's incomplete file of that name.
func partName(owner, name string) string {
	var d digest.Digest
	fmt.Fprintf(&d, "%q %q", owner, name)
	sum := d.Sum()
	return path.Join(path.Dir(name), partPrefix+hex.EncodeToString(sum[:16]))
}

// place gives the incomplete file a name that is free, or, if that is allowed,
// its own in another's place.
func (f *Folder) place(part, name string, replace bool) (string, error) {
	if replace {
		if st, err := f.root.Lstat(name); err == nil && st.Mode().IsRegular() {
			return name, f.root.Rename(part, name)
		}
	}
	dir, base := path.Split(name)
	for i := range 10_000 {
		to := dir + numbered(base, i)
		err := moveNew(f.root, part, to)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return to, err
	}
	return "", fmt.Errorf("%w: 10 000 files are called %q", fs.ErrExist, name)
}

// linkNew is moveNew with what every system has: a hard link replaces nothing.
// Where there are none either, a look before the rename must do.
func linkNew(root *os.Root, from, to string) error {
	err := root.Link(from, to)
	switch {
	case err == nil:
		return root.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	if _, err := root.Lstat(to); err == nil {
		return fs.ErrExist
	}
	return root.Rename(from, to)
}

// dirSyncs syncs folders to the disk; those who ask while one is synced share
// the next time.
type dirSyncs struct {
	mu      sync.Mutex
	waiting map[string]*dirSync
	running map[string]*dirSync
}

type dirSync struct {
	done chan struct{}
	err  error
}

// sync returns when the folder is on the disk as it was when sync was called.
func (s *dirSyncs) sync(root *os.Root, dir string) error {
	s.mu.Lock()
	if s.waiting == nil {
		s.waiting, s.running = map[string]*dirSync{}, map[string]*dirSync{}
	}
	if w := s.waiting[dir]; w != nil {
		s.mu.Unlock()
		<-w.done
		return w.err
	}
	mine := &dirSync{done: make(chan struct{})}
	for before := s.running[dir]; before != nil; before = s.running[dir] {
		s.waiting[dir] = mine
		s.mu.Unlock()
		<-before.done
		s.mu.Lock()
	}
	delete(s.waiting, dir)
	s.running[dir] = mine
	s.mu.Unlock()
	mine.err = syncDir(root, dir)
	s.mu.Lock()
	delete(s.running, dir)
	s.mu.Unlock()
	close(mine.done)
	return mine.err
}
