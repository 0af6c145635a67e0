//go:build race

package shm

import "sync/atomic"

// The race detector does not see mapped memory, and so not that what was before
// a Write is before the Read that returns its bytes. It sees this.
var raceOrder atomic.Uint64

func raceRelease() { raceOrder.Add(1) }

func raceAcquire() { raceOrder.Load() }
