//go:build !linux

package inbox

import "os"

// moveNew renames within a folder, and fails with fs.ErrExist rather than
// replace anything.
func moveNew(root *os.Root, from, to string) error { return linkNew(root, from, to) }
