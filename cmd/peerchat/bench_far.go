package main

import (
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/bench"
)

// newFarEnd is the command that bench runs in its second process.
func newFarEnd() *cobra.Command {
	cmd := plain("bench far-end", func(cmd *cobra.Command) error {
		return bench.FarEnd(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
	})
	cmd.Hidden = true
	return cmd
}

// farEnd starts this program again as the far end. That ends with its standard
// input, so even if this process is killed it has time to remove its folder.
func farEnd() (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "bench", "far-end") //nolint:noctx // it ends with its standard input
	cmd.Env = append(os.Environ(), runMainEnv+"=1")
	return cmd, nil
}
