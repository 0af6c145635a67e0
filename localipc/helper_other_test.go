//go:build !linux && !darwin

package localipc

import "errors"

func runHelper(string) error { return errors.ErrUnsupported }
