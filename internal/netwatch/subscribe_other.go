//go:build !linux

package netwatch

import (
	"context"
	"errors"
)

// subscribe fails: nobody tells here, so the addresses are looked at.
func subscribe(context.Context, chan<- struct{}) error {
	return errors.ErrUnsupported
}
