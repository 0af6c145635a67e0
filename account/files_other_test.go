//go:build !unix

package account

import "os"

// makePipe puts a folder at path, where files cannot be pipes.
func makePipe(path string) error { return os.Mkdir(path, 0o700) }
