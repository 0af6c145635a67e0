//go:build !unix

package inbox

import "os"

func lock(*os.File) error { return nil }

// syncDir does nothing: there is no such call, renames are journaled.
func syncDir(*os.Root, string) error { return nil }
