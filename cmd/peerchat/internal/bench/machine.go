package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine describes this machine and the Go that measures, in one line for
// people.
func Machine() string {
	return fmt.Sprintf("%s, %d cores for Go, %s/%s, %s", processor(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// processor names the processor where Linux tells it, else only its kind.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(info)) {
		if key, model, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown processor"
}
