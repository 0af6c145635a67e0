//go:build !linux && !darwin && !windows

package inbox

import (
	"errors"
	"os"
)

func freeSpace(*os.Root) (int64, error) { return 0, errors.ErrUnsupported }
