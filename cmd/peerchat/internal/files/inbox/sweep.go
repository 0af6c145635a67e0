package inbox

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// maxLooked is how many names Sweep looks at: a folder for files may be a whole
	// home.
	maxLooked = 200_000
	// lookBatch is how many names of a folder are held at a time.
	lookBatch = 512
	// tempLen is how long the rest of the name of an incomplete file of releases
	// before 0.6 may be: crypto/rand's Text.
	tempLen = 26
)

// Rule says which incomplete files are given up.
type Rule struct {
	// Age is how long nobody may have written to one. 0: 30 days.
	Age time.Duration
	// Most is how many may be left; those untouched longest go first, but none
	// that somebody has written to within a day, or Age if that is less. 0: 1000;
	// negative: any number.
	Most int
}

func (r Rule) withDefaults() Rule {
	r.Age = cmp.Or(r.Age, 30*24*time.Hour)
	r.Most = cmp.Or(r.Most, 1000)
	return r
}

// Abandoned is an incomplete file that was given up.
type Abandoned struct {
	Name    string    // its path in the folder
	Size    int64     // of its content, in bytes
	Touched time.Time // when somebody wrote to it last
}

// Sweep removes the incomplete files below the folder that a rule gives up, and
// returns them. None that this process or, on Unix, another one has open is
// touched, and nothing else is. It looks at no more than 200 000 names, as deep
// as files are received, and ends early with ctx's cause. It may run beside all
// else.
func (f *Folder) Sweep(ctx context.Context, r Rule) (gone []Abandoned, err error) {
	r = r.withDefaults()
	s := sweep{f: f, ctx: ctx, found: map[string]*Abandoned{}}
	if err := s.look(".", 0); err != nil {
		return nil, err
	}
	all := slices.SortedFunc(maps.Values(s.found), func(a, b *Abandoned) int {
		return cmp.Or(a.Touched.Compare(b.Touched), strings.Compare(a.Name, b.Name))
	})
	now := time.Now()
	left, idle := len(all), min(24*time.Hour, r.Age)
	for _, a := range all {
		age := now.Sub(a.Touched)
		if ctx.Err() != nil {
			return gone, context.Cause(ctx)
		}
		if age < r.Age && (r.Most < 0 || left <= r.Most || age < idle) {
			continue
		}
		switch did, removeErr := f.giveUp(*a); {
		case removeErr != nil:
			err = errors.Join(err, removeErr)
		case did:
			gone = append(gone, *a)
			left--
		}
	}
	return gone, err
}

// sweep is one look at the folder.
type sweep struct {
	f      *Folder
	ctx    context.Context //nolint:containedctx // its life is one call of Sweep
	looked int
	found  map[string]*Abandoned
}

// look finds the incomplete files in a folder and those below. One that cannot be
// read, or is gone, has none.
func (s *sweep) look(dir string, depth int) error {
	d, err := s.f.root.Open(dir)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	defer d.Close()
	for {
		batch, err := d.ReadDir(lookBatch)
		for _, e := range batch {
			if s.looked++; s.looked > maxLooked {
				return nil
			}
			name := path.Join(dir, e.Name())
			if e.IsDir() && depth < MaxDepth {
				if err := s.look(name, depth+1); err != nil {
					return err
				}
			} else if part, ours := isPart(name); ours && e.Type().IsRegular() {
				s.note(part, e)
			}
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if err != nil { // io.EOF, or it cannot be read
			return nil
		}
	}
}

// isPart returns the path of the incomplete file to which a name belongs.
func isPart(name string) (part string, ours bool) {
	part = strings.TrimSuffix(name, stateSuffix)
	rest, ours := strings.CutPrefix(path.Base(part), partPrefix)
	if !ours {
		return "", false
	}
	if len(rest) == tempLen {
		return part, part == name
	}
	_, err := hex.DecodeString(rest)
	return part, err == nil && len(rest) == 32
}

func (s *sweep) note(part string, e fs.DirEntry) {
	st, err := e.Info()
	if err != nil {
		return
	}
	a := s.found[part]
	if a == nil {
		a = &Abandoned{Name: part}
		s.found[part] = a
	}
	if st.ModTime().After(a.Touched) {
		a.Touched = st.ModTime()
	}
	if path.Base(part) == e.Name() {
		a.Size = st.Size()
	}
}

// giveUp removes an incomplete file, unless somebody has it open or has gone on
// with it.
func (f *Folder) giveUp(a Abandoned) (did bool, err error) {
	mine := &Part{f: f, part: a.Name, closed: make(chan struct{})}
	f.mu.Lock()
	if f.held[a.Name] != nil {
		f.mu.Unlock()
		return false, nil
	}
	f.held[a.Name] = mine // who resumes it now waits
	f.mu.Unlock()
	defer mine.release()
	for _, name := range []string{a.Name, mine.stateName()} {
		if st, err := f.root.Lstat(name); err == nil && (!st.Mode().IsRegular() || st.ModTime().After(a.Touched)) {
			return false, nil
		}
	}
	if content, err := f.root.OpenFile(a.Name, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		err = lock(content)
		defer content.Close()
		if err != nil {
			return false, nil //nolint:nilerr // another process has it
		}
	}
	for _, name := range []string{a.Name, mine.stateName()} {
		if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}
