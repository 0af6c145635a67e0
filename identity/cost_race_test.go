//go:build race

package identity

import "time"

// costLimit allows for the race detector, which makes parsing about ten times
// slower.
const costLimit = 10 * time.Millisecond
