// Package strictfile keeps lists in small JSON files that a person may edit.
package strictfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Read returns the text of a file of at most limit bytes; nil without an error
// says that there is no file. One that is longer comes with a byte more, which
// strictjson.Decode refuses. It blocks for the disk and may be called concurrently.
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
