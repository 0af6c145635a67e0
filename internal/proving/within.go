package proving

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Within runs a proof over conn that ctx bounds in time, and limit if it is above
// zero. Without success it closes conn. missing is what its error says that the
// far end has not done within limit; that error matches os.ErrDeadlineExceeded.
func Within[C io.Closer](ctx context.Context, conn net.Conn, limit time.Duration, missing string, proof func() (C, error)) (C, error) {
	limited, cancel := ctx, func() {}
	if limit > 0 {
		limited, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	// A deadline in the past wakes a goroutine that waits for the far end.
	stop := context.AfterFunc(limited, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	out, err := proof()
	if !stop() && err == nil {
		_ = out.Close()
		err = limited.Err()
	}
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case limited.Err() != nil:
		err = fmt.Errorf("the far end has not %s after %s: %w", missing, limit, os.ErrDeadlineExceeded)
	}
	_ = conn.Close()
	var none C
	return none, err
}
