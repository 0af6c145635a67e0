package inbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
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
	// wrap, if not nil, stands between a Part and its file: tests put failing
	// disks there.
	wrap func(file) file
	// free tells how many bytes the disk has room for.
	free func(*os.Root) (int64, error)

	syncs dirSyncs

	mu   sync.Mutex
	held map[string]*Part // by path of the incomplete file
}

// New returns a Folder in root, which the caller closes after it.
func New(root *os.Root) *Folder {
	return &Folder{root: root, free: freeSpace, held: map[string]*Part{}}
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
func (f *Folder) Close() error { return f.root.Close() }

// Mkdir makes the folder name, a path of Clean, and those above it.
func (f *Folder) Mkdir(name string) error {
	if err := f.root.MkdirAll(name, 0o777); err != nil {
		return fmt.Errorf("make the folder %q: %w", name, err)
	}
	return nil
}

// Has reports whether something of that name is there, finished or, of that
// owner, incomplete.
func (f *Folder) Has(owner, name string) bool {
	if _, err := f.root.Lstat(name); err == nil {
		return true
	}
	_, err := f.root.Lstat(partName(owner, name))
	return err == nil
}

// Fits returns an error that matches ErrNoSpace unless size more bytes have
// room beside all that is under way.
func (f *Folder) Fits(size int64) error {
	free, err := f.free(f.root)
	if err != nil {
		return nil //nolint:nilerr // a system that cannot tell
	}
	f.mu.Lock()
	for _, p := range f.held {
		free -= p.missing.Load()
	}
	f.mu.Unlock()
	if free-spare < size {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", ErrNoSpace, size, max(0, free-spare))
	}
	return nil
}

// Twins returns the files of that name and size that are there: name, "name
// (1)" and so on.
func (f *Folder) Twins(name string, size int64) (twins []string) {
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
