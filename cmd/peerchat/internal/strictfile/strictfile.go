// Package strictfile reads small JSON files that a person may have edited: what
// the program would not have written is refused with its line.
package strictfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"
)

// Read returns the text of a file of at most limit bytes; nil without an error
// says that there is no file. One that is longer comes with a byte more, which
// Decode refuses. It blocks for the disk and may be called concurrently.
func Read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if text == nil {
		text = []byte{}
	}
	return text, err
}

// Decode parses one JSON value of at most limit bytes into v, a pointer. Bytes
// that are no UTF-8, unknown keys, and anything behind the value are errors;
// those of the syntax name the line, from 1.
func Decode(text []byte, limit int, v any) error {
	if len(text) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	if !utf8.Valid(text) {
		return errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = errors.New("something follows the end")
		}
	}
	if err != nil {
		return fmt.Errorf("line %d: %w", 1+bytes.Count(text[:min(int(dec.InputOffset()), len(text))], []byte("\n")), err)
	}
	return nil
}
