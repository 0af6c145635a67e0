// Package bench measures how fast channels and carriers are on this machine, each
// figure beside what it is to be compared with, taken in the same minute.
//
//	measures, err := bench.Select([]string{"tcp"}, regexp.MustCompile("write"))
//	for _, m := range measures {
//		rows, err := m.Run(ctx, bench.Config{Time: 500 * time.Millisecond, Rounds: 5})
//		for _, r := range rows {
//			fmt.Println(r.Name, r.Value, r.Unit, r.Ratio)
//		}
//	}
//
// # In one process
//
// The first rows of the carrier "tcp" have both ends in this process, on
// loopback TCP and mutual TLS 1.3: multiplex over tlssock, and beside it
// crypto/tls with the same keys and settings. A further stream of the latter is
// a further connection. Each round makes fresh connections and measures both,
// one after the other; the next round begins with the other one.
//
// # Between two processes
//
// The rows named "raw-…" and "channel-…" of every carrier have their far end in
// a second process, which Config.FarEnd starts for a measure: the carrier's own
// stream, and one channel over it, beside memmove (one copy of as many bytes at
// a time, in this process), the carrier itself, or another carrier. A round goes
// through all ways that its rows need, beginning with another one each time. CPU
// time is of both processes. The far end makes a device and a runtime folder,
// and ends with its standard input: nothing of it is left, whichever process
// dies.
//
// # Figures
//
// A Row holds the medians over the rounds, and the median of the ratios of the
// same round: on a machine with other work only the ratios say something.
//
// The far end is told by the first byte of a stream what to do with it, and
// echoes that byte. Bulk is blocks with a running number and random content,
// which the far end compares before it reports how much came; nothing counts
// that was not verified. In one process every byte is. Between two every byte of
// the warm-up is, then the number and a moving piece of each block, as comparing
// all costs more than shared memory does. Each round trip carries a number and
// comes back whole. A damaged byte is an error of the measure.
//
// # Limits
//
// One process has one garbage collector and one scheduler for both ends, so the
// figures are not those of two machines. CPU time is of user and system
// together, and is left out where the system has no getrusage. A channel is
// opened without awaiting the answer (OpenEarly), as the neighbours do it.
package bench
