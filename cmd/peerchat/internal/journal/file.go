package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
)

const (
	maxFile = 4 << 20
	maxOld  = 3
)

// File is a log file that is put aside when it is long. Its methods may be called
// concurrently, and block for the disk.
type File struct {
	path string

	mu   sync.Mutex // held while a line is written: lines do not mix
	f    *os.File   // nil: it could not be opened again
	size int64
}

// Open appends to a file, or makes it, for this user alone. From then on the report
// of a crash of this process is written there, too. Close it.
func Open(path string) (*File, error) {
	l := &File{path: path}
	if err := l.open(os.O_APPEND); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the file. mu is held, or nobody else has it yet.
func (l *File) open(flag int) error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|flag, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, st.Size()
	return debug.SetCrashOutput(f, debug.CrashOptions{})
}

// Write implements io.Writer for a line, or several.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil || l.size+int64(len(p)) > maxFile {
		if err := l.turn(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

// turn puts the file aside and begins another one. Where that cannot be, what is in
// the file is given up: it must not grow for ever.
func (l *File) turn() error {
	err := l.close()
	flag := os.O_APPEND
	for i := maxOld; i > 0; i-- {
		from := l.path
		if i > 1 {
			from = fmt.Sprint(l.path, ".", i-1)
		}
		moved := os.Rename(from, fmt.Sprint(l.path, ".", i))
		if i == 1 && moved != nil && !errors.Is(moved, os.ErrNotExist) {
			flag |= os.O_TRUNC
		}
	}
	return errors.Join(err, l.open(flag))
}

func (l *File) close() error {
	if l.f == nil {
		return nil
	}
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
	f := l.f
	l.f = nil
	return f.Close()
}

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}
