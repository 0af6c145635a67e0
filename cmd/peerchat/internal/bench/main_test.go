package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// farEnv makes this test binary the far end of another one.
const farEnv = "BENCH_FAR_END"

func TestMain(m *testing.M) {
	if os.Getenv(farEnv) != "" {
		if err := FarEnd(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// otherProcess is this test binary as a far end.
func otherProcess() (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), farEnv+"=1", "GORACE=atexit_sleep_ms=0") // the race detector's own end takes a second
	return cmd, nil
}
