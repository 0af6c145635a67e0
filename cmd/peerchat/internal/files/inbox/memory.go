package inbox

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// Most keys that are remembered of members and of strangers: two of each file. A
// contact's tree of 100 000 files is compared when it is sent again; strangers
// cannot have that forgotten. They are 8 and 2 MiB.
const (
	memberKeys   = 1 << 19
	strangerKeys = 1 << 17
)

// memory is what has been sent here and by which sender, as hashes: a sender is
// compared with what it has sent itself, and told of nothing else that is here.
type memory struct {
	mu                 sync.Mutex
	members, strangers shelf
}

// key is a hash of a folder, a sender and what that has sent.
type key [16]byte

// shelf has keys, the oldest first. Its log has the same; nil: there is none.
type shelf struct {
	most  int
	known map[key]struct{}
	order []key
	log   *os.File
}

// Remember has the folder know, beyond its life, what each sender has sent: in a
// file for members and another one, of that path and "-strangers". What is there
// is read. Several folders and processes may share the files; what another one
// adds is known at the next start. The files have at most 8 and 2 MiB; then the
// older half is forgotten, and sending it again brings it again.
func (f *Folder) Remember(path string) error {
	f.sent.mu.Lock()
	defer f.sent.mu.Unlock()
	return errors.Join(f.sent.members.read(path), f.sent.strangers.read(path+"-strangers"))
}

func (s *shelf) read(path string) (err error) {
	if s.log, err = os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	st, err := s.log.Stat()
	if err != nil {
		return err
	}
	n := st.Size() / int64(len(key{}))
	skip := max(0, n-int64(s.most)) * int64(len(key{}))
	b, err := io.ReadAll(io.NewSectionReader(s.log, skip, int64(s.most*len(key{}))))
	if torn := st.Size() % int64(len(key{})); err == nil && torn > 0 {
		err = s.log.Truncate(st.Size() - torn) // a process died while it wrote
	}
	for k := range slices.Chunk(b[:len(b)-len(b)%len(key{})], len(key{})) {
		s.keep(key(k))
	}
	return err
}

// keep adds a key; false if it was there.
func (s *shelf) keep(k key) bool {
	if _, there := s.known[k]; there {
		return false
	}
	s.known[k] = struct{}{}
	s.order = append(s.order, k)
	return true
}

// add remembers keys. It returns what the log does not have yet, or, anew, all that
// it is to have.
func (s *shelf) add(keys []key) (log []byte, anew bool) {
	keys = slices.DeleteFunc(keys, func(k key) bool { return !s.keep(k) })
	if anew = len(s.order) > s.most; anew {
		for _, k := range s.order[:s.most/2] {
			delete(s.known, k)
		}
		s.order = slices.Clone(s.order[s.most/2:])
		keys = s.order
	}
	for _, k := range keys {
		log = append(log, k[:]...)
	}
	return log, anew
}

// write has the log say so, too. One that cannot be written, or is written beside
// another write, costs at most that a file is sent again.
func (s *shelf) write(log []byte, anew bool) {
	if s.log == nil || len(log) == 0 {
		return
	}
	if anew {
		_ = s.log.Truncate(0)
	}
	_, _ = s.log.Write(log)
}

func (s *shelf) close() error {
	if s.log == nil {
		return nil
	}
	return s.log.Close()
}

// key is what is remembered of something that an owner has sent into this folder.
func (f *Folder) key(owner string, what ...any) (k key) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", f.dir, owner, what))
	copy(k[:], sum[:])
	return k
}

// note remembers a file that an owner has sent whole.
func (f *Folder) note(c Claim, name string, size int64, sum digest.Sum) {
	keys := []key{f.key(c.Owner, top(name)), f.key(c.Owner, name, size), f.key(c.Owner, name, size, sum)}
	s := &f.sent.members
	if c.Stranger {
		s = &f.sent.strangers
	}
	f.sent.mu.Lock()
	log, anew := s.add(keys)
	f.sent.mu.Unlock()
	s.write(log, anew)
}

func (f *Folder) known(k key) bool {
	f.sent.mu.Lock()
	defer f.sent.mu.Unlock()
	_, member := f.sent.members.known[k]
	_, stranger := f.sent.strangers.known[k]
	return member || stranger
}

// Sent reports whether that owner has sent this content under that name before.
func (f *Folder) Sent(owner, name string, size int64, sum digest.Sum) bool {
	return f.known(f.key(owner, name, size, sum))
}
