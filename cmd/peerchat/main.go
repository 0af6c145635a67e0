// Peerchat is the program that shows peerlink: chat and files between devices
// that know no more of each other than a device id.
//
//	peerchat init, id, contacts      an account, its device id, names for others
//	peerchat listen                  be reachable: chats on the terminal, files into a folder
//	peerchat chat [WHO]              on the terminal; or lines in, lines out
//	peerchat forward WHO             TCP ports and Unix sockets, there and here
//	peerchat serve, browse WHO       a folder or web server there, in a browser here
//	peerchat send WHO FILE...        files and folders, with progress
//	peerchat receive [FOLDER]        take files, verified, into a folder
//	peerchat run, stop, status       the daemon that holds the account, and what it holds
//	peerchat web                     a page that makes a browser a device
//	peerchat doctor WHO              how a device is reached, or why not
//	peerchat node                    a bootstrap node of a private network
//	peerchat bench                   how fast channels are on this machine
//	peerchat demo                    all of it on this machine, in a minute
//
// Results go to standard output, progress and notes to standard error. The exit
// status is 0 for success, 1 for failure, 2 for a wrong command line, 3 where
// the daemon is needed and cannot be had, or has ended meanwhile, 129, 130 and 143
// after SIGHUP, SIGINT and SIGTERM.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

const (
	exitFailure = 1
	exitUsage   = 2
	exitDaemon  = 3   // no daemon, none could be started, or it is of another release
	exitSignal  = 128 // plus the signal's number
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// usageError is an error of the command line.
type usageError struct{ error }

// caught is the cause of a context that a signal ended.
type caught struct{ sig syscall.Signal }

// Error names the signal.
func (c caught) Error() string { return "stopped by " + c.sig.String() }

// run is main without the process around it.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sigc := make(chan os.Signal, 1)
	signal.Notify(sigc, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(sigc)
	go func() {
		select {
		case s := <-sigc:
			cancel(caught{s.(syscall.Signal)})
			signal.Stop(sigc) // a second one ends the process at once
		case <-ctx.Done():
		}
	}()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	addCompletion(root)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if endsByHangUp(cmd) {
			signal.Notify(sigc, syscall.SIGHUP)
		}
	}
	cmd, err := root.ExecuteContextC(ctx)
	var c caught
	var usage usageError
	var ended *control.EndedError
	switch {
	case errors.As(context.Cause(ctx), &c), errors.As(err, &c):
		return exitSignal + int(c.sig)
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "peerchat: %v\nTry “%s --help”.\n", err, cmd.CommandPath())
		return exitUsage
	case errors.As(err, &ended): // whatever it was in the middle of
		fmt.Fprintf(errOut, "peerchat: %v\n", ended)
		return exitDaemon
	default:
		fmt.Fprintf(errOut, "peerchat: %v\n", err)
		return failure(err)
	}
}

// endsByHangUp reports whether the end of the terminal is that of a command. The
// daemon reads its settings again instead, and nohup has each command go on.
func endsByHangUp(cmd *cobra.Command) bool {
	return cmd.CommandPath() != "peerchat run" && !signal.Ignored(syscall.SIGHUP)
}

// failure is the exit status of an error.
func failure(err error) int {
	var noDaemon daemonError
	var version *control.VersionError
	if errors.As(err, &noDaemon) || errors.As(err, &version) || errors.Is(err, control.ErrNoDaemon) {
		return exitDaemon
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	opts := &options{}
	root := &cobra.Command{
		Use:           "peerchat",
		Short:         "Chat and files between devices, by device id",
		Long:          "Chat and files between devices that know no more of each other than a device id, wherever\nthey are.\n\n" + exitStatus,
		Example:       "  peerchat id                       # tell it to somebody\n  peerchat contacts add bob 0f3c…   # and name them\n  peerchat chat bob\n  peerchat send bob photo.jpg\n  peerchat status --watch",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(noArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	opts.register(root.PersistentFlags())
	root.AddCommand(newInit(opts), newID(opts), newContacts(opts), newDevice(opts), newRun(opts), newStop(opts), newStatus(opts),
		newNode(opts), newListen(opts), newChat(opts), newHistory(opts), newPipe(opts), newForward(opts), newServe(opts), newBrowse(opts), newSend(opts), newReceive(opts), newWeb(opts), newDoctor(opts), newBench(opts), newDemo(opts), newMan())
	root.SetHelpCommand(newHelp())
	return root
}

// addCompletion adds cobra's command for completions, once it is known where its
// output goes. By itself it shows its help for a shell that it does not know.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = usageArgs(noArgs), func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// noArgs refuses arguments; where there are commands below, one may have been
// meant.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return fmt.Errorf("%s takes no arguments, so %.100q is one too many", cmd.CommandPath(), args[0])
	}
	return unknownCommand(cmd, args[0])
}

// unknownCommand says that there is no command of a name, and which ones are like
// it.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2 // letters, as cobra has it
	like := cmd.SuggestionsFor(name)
	if len(like) == 0 {
		return fmt.Errorf("unknown command %.100q for %q", name, cmd.CommandPath())
	}
	return fmt.Errorf("unknown command %.100q for %q: perhaps %s is meant", name, cmd.CommandPath(), strings.Join(like, " or "))
}

// newHelp is the command that shows the help of others.
func newHelp() *cobra.Command {
	return described("help", &cobra.Command{
		RunE: func(cmd *cobra.Command, args []string) error {
			at, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 {
				return usageError{unknownCommand(at, rest[0])}
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			at, _, err := cmd.Root().Find(args)
			var names []string
			if err == nil {
				for _, c := range at.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), typed) {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	})
}

// usageArgs makes wrong arguments an error of the command line.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// counted is usageArgs for a check of cobra's, which names no argument.
func counted(check cobra.PositionalArgs) cobra.PositionalArgs {
	return usageArgs(func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w, want: %s", err, cmd.UseLine())
		}
		return nil
	})
}
