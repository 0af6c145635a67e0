//go:build unix

package forward

import (
	"path/filepath"

	"github.com/google/renameio/v2"
)

// replace writes a file whole or not at all.
func replace(path string, text []byte) error {
	return renameio.WriteFile(path, text, 0o600, renameio.WithTempDir(filepath.Dir(path)))
}
