// Package transfer carries one file over one channel, verified end to end.
//
//	// the sender                                       // the receiver
//	sum, err := transfer.Send(conn, "photo.jpg", size, r, nil)  f, err := transfer.Receive(conn, root, transfer.Limits{}, nil)
//
// # Wire
//
// Each message is length:uint16 (big-endian) and that many bytes of msgpack.
//
//	sender → receiver   [version uint, name str, size uint]
//	receiver → sender   [accepted bool, reason str]
//	sender → receiver   size bytes of content, then the 32 bytes of their SHA-256
//	receiver → sender   [ok bool, reason str, sha256 bin]
//
// # Limits
//
// The name is one path element that every system takes; the receiver writes
// only inside its folder (os.Root), never over an existing file, and gives the
// file its name only once the whole hash fits.
package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/packed"
)

const (
	version = 1
	// maxMessage bounds a message's length in bytes: names and reasons are 255.
	maxMessage = 1024
	maxReason  = 255
	// MaxNameLen is the length of a name in bytes, as most file systems have it.
	MaxNameLen = 255
	// copyBuf is how much is read, hashed and sent at a time, in bytes.
	copyBuf = 256 << 10
)

// ErrRefused is matched when the receiver did not want the file.
var ErrRefused = errors.New("the receiver refused the file")

// ErrCorrupt is matched when the content did not arrive as it was sent.
var ErrCorrupt = errors.New("the content does not match its SHA-256")

// CheckName reports whether name may be given to a received file: one path
// element of at most 255 bytes of printable UTF-8 that no system takes for
// something else.
func CheckName(name string) error {
	bad := func(why string) error { return fmt.Errorf("file name %.80q: %s", name, why) }
	switch {
	case name == "" || name == "." || name == "..":
		return bad("is no name")
	case len(name) > MaxNameLen:
		return bad(fmt.Sprintf("has %d bytes, at most %d are allowed", len(name), MaxNameLen))
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsAny(name, `/\:*?"<>|`):
		return bad("has a character that separates or stands for paths")
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") || strings.HasPrefix(name, " "):
		return bad("begins or ends with a space or ends with a dot")
	case strings.HasPrefix(name, tempPrefix):
		return bad("is what unfinished files are called here")
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return bad(fmt.Sprintf("has the unprintable character %U", r))
		}
	}
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch strings.TrimRight(stem, " ") {
	case "CON", "PRN", "AUX", "NUL", "COM0", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
		"LPT0", "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9":
		return bad("names a device on Windows")
	}
	return nil
}

// Send sends size bytes of content under a name and waits until the receiver
// has verified and kept them. progress, which may be nil, is told of each
// piece. The conn is not closed. The error matches ErrRefused, ErrCorrupt or
// is the conn's or content's.
func Send(conn io.ReadWriter, name string, size int64, content io.Reader, progress func(n int)) (sum [sha256.Size]byte, err error) {
	if err := CheckName(name); err != nil {
		return sum, err
	}
	if size < 0 {
		return sum, fmt.Errorf("file %q: size %d", name, size)
	}
	if err := writeMessage(conn, []any{uint(version), name, uint64(size)}); err != nil {
		return sum, fmt.Errorf("announce %q: %w", name, err)
	}
	ok, reason, _, err := readVerdict(conn)
	if err != nil {
		return sum, fmt.Errorf("wait for the receiver's word on %q: %w", name, err)
	}
	if !ok {
		return sum, fmt.Errorf("%q: %w: %q", name, ErrRefused, reason)
	}
	h := sha256.New()
	n, err := copyHashed(conn, io.LimitReader(content, size), h, progress)
	if err != nil {
		return sum, fmt.Errorf("send %q after %d of %d bytes: %w", name, n, size, err)
	}
	if n != size {
		return sum, fmt.Errorf("send %q: it has %d bytes now, and %d were announced: it changed meanwhile", name, n, size)
	}
	h.Sum(sum[:0])
	if _, err := conn.Write(sum[:]); err != nil {
		return sum, fmt.Errorf("send %q: %w", name, err)
	}
	ok, reason, theirs, err := readVerdict(conn)
	switch {
	case err != nil:
		return sum, fmt.Errorf("wait until %q is verified: %w", name, err)
	case !ok:
		return sum, fmt.Errorf("%q was not kept: %q", name, reason)
	case !bytes.Equal(theirs, sum[:]):
		return sum, fmt.Errorf("%q: %w: the receiver has %x, sent was %x", name, ErrCorrupt, theirs, sum)
	}
	return sum, nil
}

// copyHashed copies and hashes until the source ends.
func copyHashed(dst io.Writer, src io.Reader, h hash.Hash, progress func(int)) (total int64, err error) {
	buf := make([]byte, copyBuf)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			h.Write(buf[:n])
			if _, err := dst.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			if progress != nil {
				progress(n)
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// writeMessage sends one message.
func writeMessage(w io.Writer, elems []any) error {
	body, err := msgpack.Marshal(elems)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

// readMessage receives one message's array of want elements or more.
func readMessage(r io.Reader, want int) (*packed.Reader, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, unexpected(err)
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes, at most %d are taken", n, maxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, unexpected(err)
	}
	p := packed.NewReader(body)
	k, err := p.Array(packed.MaxCount)
	if err != nil {
		return nil, err
	}
	if k < want {
		return nil, fmt.Errorf("a message of %d elements, want %d", k, want)
	}
	return p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readVerdict receives what the receiver decided; sum is empty at first.
func readVerdict(r io.Reader) (ok bool, reason string, sum []byte, err error) {
	p, err := readMessage(r, 2)
	if err != nil {
		return false, "", nil, err
	}
	if ok, err = p.Bool(); err != nil {
		return false, "", nil, err
	}
	if reason, err = p.String(maxReason); err != nil {
		return false, "", nil, err
	}
	if p.Len() > 0 {
		sum, err = p.Bytes(sha256.Size)
	}
	return ok, reason, sum, err
}

// cut shortens a reason to what a message takes.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	return s
}
