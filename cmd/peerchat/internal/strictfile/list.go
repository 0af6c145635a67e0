package strictfile

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"peerlink/internal/atomicfile"
)

// List is a list that is kept in a file. Each change is on disk, whole, before
// it is seen. Set the exported fields and call Load before all else. The other
// methods may be called concurrently.
type List[T any] struct {
	Path  string // of the file
	Name  string // what errors call the list
	Limit int    // how many bytes the file may have
	// Parse reads the text of the file, and refuses what was not written here.
	Parse func(text []byte) ([]T, error)
	// File returns what stands on disk, as a value for JSON.
	File func([]T) any

	mu  sync.Mutex // held by a Change
	now atomic.Pointer[[]T]
}

// Load reads the file; without one the list is empty. It blocks for the disk. A
// damaged file is an error with its place, and is never replaced.
func (l *List[T]) Load() error {
	text, err := Read(l.Path, l.Limit)
	if text != nil && err == nil {
		var all []T
		if all, err = l.Parse(text); err == nil {
			l.now.Store(&all)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", l.Name, l.Path, err)
	}
	return nil
}

// All returns the list, which must not be changed. It does not wait for the disk.
func (l *List[T]) All() []T {
	if now := l.now.Load(); now != nil {
		return *now
	}
	return nil
}

// Change replaces the list by what do makes of it, on disk first if write is
// set. do must leave the list that it is given as it is, and must not call the
// list's methods. An error of do is returned as it is, and changes nothing. Change
// blocks for the disk. After an error of the disk the list is as it was; the file
// has the change only if its last step failed, the sync of the folder.
func (l *List[T]) Change(do func(now []T) (next []T, write bool, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, write, err := do(l.All())
	if err != nil {
		return err
	}
	if write {
		text, err := json.MarshalIndent(l.File(next), "", "  ")
		if err != nil {
			return err
		}
		if err := atomicfile.Write(l.Path, append(text, '\n')); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	l.now.Store(&next)
	return nil
}
