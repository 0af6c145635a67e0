// Package atomicfile writes small files whole or not at all, also when the
// process or the machine dies in the middle.
//
//	err := atomicfile.Write(filepath.Join(folder, "contacts.json"), text)
//
// A process that dies may leave a file named "." + the name + a number: it has
// the bytes that were written so far.
package atomicfile

import (
	"os"
	"path/filepath"
)

// Mode is what a written file has, for this user only, also if it had another one before.
const Mode os.FileMode = 0o600

// Write replaces the file at path, or makes it. It blocks until the disk has the
// bytes and, on Unix, the file's name: a power cut does not bring the old file
// back. After an error of the write the old file stands as it was, and nothing
// else is left in the folder; only if the error is that of the folder's sync, the last step,
// the new file stands. Of concurrent calls one stands last, whole. A symbolic
// link at path is replaced, not followed. The folder must be there.
func Write(path string, b []byte) error { return write(path, b, syncFolder) }

// write is Write, which makes the folder's names safe with sync.
func write(path string, b []byte, sync func(folder string) error) error {
	folder := filepath.Dir(path) // the file is written there: elsewhere a key could be left behind
	if err := replace(folder, path, b); err != nil {
		return err
	}
	return sync(folder)
}
