package parcel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"peerlink/cmd/peerchat/internal/files/inbox"
)

// dirBatch is how many names of a folder are held at a time.
const dirBatch = 512

// tree is what is to be sent: files, and folders with all that is in them.
type tree []top

// top is one argument, below the folder it is in: nothing is opened outside.
type top struct {
	name string // as the receiver will see it
	dir  string
	base string
}

// item is one entry of a tree. skip says why it cannot be sent.
type item struct {
	path     []string
	folder   bool
	size     int64
	modified time.Time
	exec     bool
	dir      string // below which it is opened, by
	inDir    string // this path
	skip     error
}

func (i item) name() string { return strings.Join(i.path, "/") }

// newTree checks that the arguments can be sent together.
func newTree(paths []string) (tree, error) {
	var t tree
	seen := map[string]string{}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		st, err := os.Stat(abs)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() && !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is neither a file nor a folder", p)
		}
		name := filepath.Base(abs)
		if other, taken := seen[name]; taken {
			return nil, fmt.Errorf("%s and %s would both be called %q there: send them one after another", other, p, name)
		}
		if _, err := inbox.Clean([]string{name}); err != nil {
			return nil, err
		}
		seen[name] = p
		if real, err := filepath.EvalSymlinks(abs); err == nil { // a link given by its sender is followed
			abs = real
		}
		t = append(t, top{name: name, dir: filepath.Dir(abs), base: filepath.Base(abs)})
	}
	return t, nil
}

func (t tree) names() (names []string) {
	for _, a := range t[:min(len(t), maxNames)] {
		names = append(names, a.name)
	}
	return names
}

// items walks the tree, folders before what is in them, in the order of the
// disk, holding one batch of names for each folder above.
func (t tree) items() iter.Seq[item] {
	return func(yield func(item) bool) {
		for _, a := range t {
			root, err := os.OpenRoot(a.dir)
			if err != nil {
				if !yield(item{path: []string{a.name}, skip: err}) {
					return
				}
				continue
			}
			more := a.walk(root, a.base, []string{a.name}, yield)
			_ = root.Close()
			if !more {
				return
			}
		}
	}
}

func (a top) walk(root *os.Root, name string, path []string, yield func(item) bool) bool {
	it := look(root, name, path)
	it.dir = a.dir
	if !yield(it) {
		return false
	}
	if !it.folder || it.skip != nil {
		return true
	}
	dir, err := root.Open(name)
	if err != nil {
		return yield(item{path: path, folder: true, skip: err})
	}
	defer dir.Close()
	for {
		batch, err := dir.ReadDir(dirBatch)
		for _, e := range batch {
			below := append(path[:len(path):len(path)], e.Name())
			if !a.walk(root, filepath.Join(name, e.Name()), below, yield) {
				return false
			}
		}
		if err == io.EOF {
			return true
		}
		if err != nil {
			return yield(item{path: path, folder: true, skip: err})
		}
	}
}

// look is what is known of a name before it is opened.
func look(root *os.Root, name string, path []string) item {
	it := item{path: path, inDir: name}
	st, err := root.Lstat(name)
	size := 0
	for _, e := range path {
		size += len(e) + 1
	}
	switch {
	case err != nil:
		it.skip = err
	case len(path) > inbox.MaxDepth || size > inbox.MaxPathLen:
		it.skip = errors.New("its path is too long")
	case !utf8.ValidString(path[len(path)-1]):
		it.skip = errors.New("its name is not UTF-8")
	case st.IsDir():
		it.folder = true
	case st.Mode()&fs.ModeSymlink != 0:
		it.skip = errors.New("symbolic links are not sent")
	case !st.Mode().IsRegular():
		it.skip = errors.New("it is neither a file nor a folder")
	}
	if it.skip == nil {
		it.modified = st.ModTime()
		if !it.folder {
			it.size, it.exec = st.Size(), st.Mode()&0o100 != 0
		}
	}
	return it
}

// open opens the item's file, which must be as it was announced.
func (i item) open() (*os.File, error) {
	root, err := os.OpenRoot(i.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(i.inDir, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := i.unchanged(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

var errChanged = errors.New("it changed while it was sent: send it again")

// unchanged reports whether the file is still the one that was announced.
func (i item) unchanged(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() != i.size || !st.ModTime().Equal(i.modified) {
		return errChanged
	}
	return nil
}
