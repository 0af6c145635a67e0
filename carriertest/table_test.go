package carriertest_test

import (
	"fmt"
	"runtime"
	"testing"

	"peerlink/carriertest"
	"peerlink/peerlinktest/loopback"
)

// TestTable runs all carriers of ours, and adopted streams, and prints the table.
//
// case: E1, E3, E4
func TestTable(t *testing.T) {
	carriers := loopback.Table()
	adopted := carriers[0]
	adopted.Name, adopted.Adopted = "adopted", true
	carriers = append(carriers, adopted)
	tables := make([][]carriertest.Row, len(carriers))
	t.Run("of", func(t *testing.T) {
		for i, c := range carriers {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				if here := runtime.GOOS; (c.Name == "unix" || c.Name == "shm") && here != "linux" && here != "darwin" {
					t.Skipf("NOT TESTED: %s on %s", c.Name, here)
				}
				tables[i] = carriertest.Run(t, c)
			})
		}
	})
	for _, rows := range tables {
		if rows != nil {
			fmt.Println(carriertest.Table(rows))
		}
	}
}
