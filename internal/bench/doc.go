// Package bench measures how fast channels are on this machine, each figure
// beside what crypto/tls alone reaches in the same minute.
//
//	measures, err := bench.Select([]string{"tcp"}, regexp.MustCompile("write"))
//	for _, m := range measures {
//		rows, err := m.Run(ctx, bench.Config{Time: 500 * time.Millisecond, Rounds: 5})
//		for _, r := range rows {
//			fmt.Println(r.Name, r.Value, r.Unit, r.Ratio)
//		}
//	}
//
// # How
//
// Over the carrier "tcp" both ends are in this process, on loopback TCP and
// mutual TLS 1.3: multiplex over tlssock, and beside it crypto/tls with the
// same keys and settings. A further stream of the latter is a further
// connection. Each round makes fresh connections and measures both, one after
// the other; the next round begins with the other one. A Row holds the medians
// over the rounds, and the median of the ratios of the same round: on a machine
// with other work only the ratios say something.
//
// The far end is told by the first byte of a stream what to do with it, and
// echoes that byte. Bulk is blocks with a running number and random content,
// every byte of which the far end compares before it reports how much came;
// nothing counts that was not verified. Each round trip carries a number and
// comes back whole. A damaged byte is an error of the measure.
//
// # Limits
//
// One process has one garbage collector and one scheduler for both ends, so the
// figures are not those of two machines. CPU time is of user and system
// together, both ends together, and is left out where the system has no
// getrusage. A channel is opened without awaiting the answer (OpenEarly), as
// the neighbours do it.
package bench
