//go:build unix

package strictfile

import (
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Replace writes a file (0600) whole or not at all. It blocks until the disk has
// it; of concurrent calls one stands last.
func Replace(path string, text []byte) error {
	return renameio.WriteFile(path, text, 0o600, renameio.WithTempDir(filepath.Dir(path)))
}
