package account

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir) // this process is there to be killed; see crash_test.go
	}
	goleak.VerifyTestMain(m)
}
