package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is the command that writes the man pages, for those who package this.
func newMan() *cobra.Command {
	return described("man", &cobra.Command{
		Hidden: true,
		Args:   counted(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same source, the same pages
			date := time.Unix(0, 0).UTC()
			return doc.GenManTree(root, &doc.GenManHeader{Title: "PEERCHAT", Section: "1", Source: "peerlink", Manual: "peerchat", Date: &date}, args[0])
		},
	})
}

// exitStatus is part of the help of the program itself.
var exitStatus = fmt.Sprintf(`Exit status:
  0    success
  %d    failure; the reason stands on standard error
  %d    a wrong command line
  %d    the daemon is needed, and none runs, none could be started, it is of another release, or
       it has ended meanwhile
  129  stopped by SIGHUP, the end of the terminal (the daemon reads its settings anew instead)
  130  stopped by SIGINT
  143  stopped by SIGTERM

Environment:
  %s  bootstrap nodes, separated by commas
  %s  if not empty: hold the account in the command itself, as --no-daemon
  NO_COLOR            if not empty: no colours
  XDG_DATA_HOME       where the account is kept: peerlink/account below it
  XDG_RUNTIME_DIR     where the sockets are: peerlink below it`, exitFailure, exitUsage, exitDaemon, bootstrapEnv, noDaemonEnv)
