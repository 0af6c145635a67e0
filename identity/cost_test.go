//go:build !race

package identity

import "time"

// costLimit is what verifying any chain may take.
const costLimit = time.Millisecond
