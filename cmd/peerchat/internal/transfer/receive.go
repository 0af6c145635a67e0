package transfer

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// tempPrefix begins the names of unfinished files in the receiver's folder.
const tempPrefix = ".peerlink-part-"

// Limits bound what a receiver takes.
type Limits struct {
	// MaxSize is the size of a file in bytes; 0: 1 TiB.
	MaxSize int64
	// Wanted is asked before anything is received, with a checked name and
	// size; an error refuses, and its text reaches the sender. nil: all.
	Wanted func(name string, size int64) error
}

// File is what was received.
type File struct {
	Name string // under which it is in the folder; may differ from Sent
	Sent string // the sender's name for it
	Size int64
	Sum  [sha256.Size]byte
}

// Receive takes one file from conn into the folder and tells the sender that
// it is verified and kept. The conn is not closed. If the name is taken, the
// file gets " (1)" and so on before its extension. On an error nothing of the
// file remains, and File has what is known of it.
func Receive(conn io.ReadWriter, folder *os.Root, limits Limits, progress func(n int)) (f File, err error) {
	if limits.MaxSize == 0 {
		limits.MaxSize = 1 << 40
	}
	if err := f.readHeader(conn); err != nil {
		return f, fmt.Errorf("file announcement: %w", err)
	}
	if err := f.acceptable(limits); err != nil {
		_ = writeMessage(conn, []any{false, cut(err.Error())})
		return f, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	temp := tempPrefix + rand.Text()
	out, err := folder.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		_ = writeMessage(conn, []any{false, "the file cannot be stored"})
		return f, fmt.Errorf("receive %q: %w", f.Sent, err)
	}
	defer func() {
		_ = out.Close()
		_ = folder.Remove(temp) // where it was linked to its name, that remains
	}()
	if err := writeMessage(conn, []any{true, ""}); err != nil {
		return f, fmt.Errorf("receive %q: %w", f.Sent, err)
	}
	if err := f.receiveContent(conn, out, progress); err != nil {
		_ = writeMessage(conn, []any{false, cut(reason(err)), []byte{}})
		return f, fmt.Errorf("receive %q: %w", f.Sent, err)
	}
	if err := f.keep(folder, temp); err != nil {
		_ = writeMessage(conn, []any{false, "the file cannot be stored", []byte{}})
		return f, fmt.Errorf("keep %q: %w", f.Sent, err)
	}
	if err := writeMessage(conn, []any{true, "", f.Sum[:]}); err != nil {
		return f, fmt.Errorf("%q is kept as %q, but its sender was not told: %w", f.Sent, f.Name, err)
	}
	return f, nil
}

// reason keeps the receiver's paths to itself.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return "the file cannot be stored: " + pe.Err.Error()
	}
	return err.Error()
}

func (f *File) readHeader(conn io.Reader) error {
	p, err := readMessage(conn, 3)
	if err != nil {
		return err
	}
	if _, err := p.Uint(1 << 16); err != nil { // versions to come add elements
		return err
	}
	if f.Sent, err = p.String(maxMessage); err != nil {
		return err
	}
	size, err := p.Uint(1<<63 - 1)
	f.Size = int64(size)
	return err
}

func (f *File) acceptable(l Limits) error {
	if err := CheckName(f.Sent); err != nil {
		return err
	}
	if f.Size > l.MaxSize {
		return fmt.Errorf("%d bytes, at most %d are taken", f.Size, l.MaxSize)
	}
	if l.Wanted != nil {
		return l.Wanted(f.Sent, f.Size)
	}
	return nil
}

// receiveContent writes the content to out, verified and on disk.
func (f *File) receiveContent(conn io.Reader, out *os.File, progress func(int)) error {
	h := sha256.New()
	n, err := copyHashed(out, io.LimitReader(conn, f.Size), h, progress)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, f.Size, err)
	}
	if n != f.Size {
		return fmt.Errorf("after %d of %d bytes: %w", n, f.Size, io.ErrUnexpectedEOF)
	}
	var theirs [sha256.Size]byte
	if _, err := io.ReadFull(conn, theirs[:]); err != nil {
		return fmt.Errorf("its SHA-256: %w", unexpected(err))
	}
	h.Sum(f.Sum[:0])
	if f.Sum != theirs {
		return fmt.Errorf("%w: arrived %x, sent %x", ErrCorrupt, f.Sum, theirs)
	}
	return out.Sync()
}

// keep gives the finished file a name that is free. A hard link never replaces
// a file; where the file system has none, a look before the rename must do.
func (f *File) keep(folder *os.Root, temp string) error {
	ext := path.Ext(f.Sent)
	stem := strings.TrimSuffix(f.Sent, ext)
	if stem == "" { // ".profile" is all stem
		stem, ext = f.Sent, ""
	}
	for i := range 10_000 {
		name := f.Sent
		if i > 0 {
			name = fmt.Sprintf("%s (%d)%s", stem, i, ext)
		}
		err := folder.Link(temp, name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			if _, statErr := folder.Lstat(name); statErr == nil {
				continue
			}
			err = folder.Rename(temp, name)
		}
		if err != nil {
			return err
		}
		f.Name = name
		return nil
	}
	return fmt.Errorf("%w: 10 000 files of that name", fs.ErrExist)
}
