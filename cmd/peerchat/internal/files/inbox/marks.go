package inbox

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"peerlink/cmd/peerchat/internal/files/digest"
)

const (
	marksMagic = "peerlink part 1\n"
	markLen    = 8 + digest.Size + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mark says what the content up to an offset hashes to.
type mark struct {
	at  int64
	sum digest.Sum
}

func (m mark) appendTo(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(b, uint64(m.at))
	b = append(b, m.sum[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// readMarks calls each with the marks of a state, which ascend, and with where
// each ends. It stops at the first that is torn, damaged or beyond size: a kill
// leaves such ends.
func readMarks(r io.Reader, size int64, each func(m mark, end int64) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	magic := make([]byte, len(marksMagic))
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != marksMagic {
		return nil //nolint:nilerr // no marks
	}
	var b [markLen]byte
	last, end := int64(0), int64(len(marksMagic))
	for {
		if _, err := io.ReadFull(br, b[:]); err != nil {
			return nil //nolint:nilerr // the end, or a torn one
		}
		at := binary.BigEndian.Uint64(b[:])
		whole := binary.BigEndian.Uint32(b[markLen-4:]) == crc32.Checksum(b[:markLen-4], castagnoli)
		if !whole || at <= uint64(last) || at > uint64(size) {
			return nil
		}
		last, end = int64(at), end+markLen
		if err := each(mark{last, digest.Sum(b[8:])}, end); err != nil {
			return err
		}
	}
}

// openMarks makes an empty state.
func openMarks(root *os.Root, name string) (*os.File, error) {
	s, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := s.WriteString(marksMagic); err != nil {
		return nil, errors.Join(err, s.Close(), root.Remove(name))
	}
	return s, nil
}
