package main

import (
	_ "embed" // help.txt
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

// helpText holds, for each command, a line "# PATH", a line "usage: USE", a line
// that says in short what the command does, and, each after an empty line, the
// description and "Examples:" with the lines that follow. The last two may be
// left out.
//
//go:embed help.txt
var helpText string

// help is what help.txt says of one command.
type help struct{ use, short, long, examples string }

// helpOf returns what help.txt says, by the path of the command.
var helpOf = sync.OnceValue(func() map[string]help {
	all := map[string]help{}
	for section := range strings.SplitSeq("\n"+helpText, "\n# ") {
		path, text, _ := strings.Cut(strings.TrimSpace(section), "\nusage: ")
		text, examples, _ := strings.Cut(text, "\n\nExamples:\n")
		head, long, _ := strings.Cut(text, "\n\n")
		use, short, _ := strings.Cut(head, "\n")
		all[path] = help{use, short, long, examples}
	}
	delete(all, "")
	return all
})

// plain is a command without arguments.
func plain(path string, run func(cmd *cobra.Command) error) *cobra.Command {
	return described(path, &cobra.Command{
		Args: usageArgs(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	})
}

// toContact is a command whose first argument may be a contact's name, which
// shells complete.
func (o *options) toContact(path string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return described(path, &cobra.Command{Args: args, ValidArgsFunction: o.completeContact, RunE: run})
}

// described gives a command the texts of help.txt, where they stand under its
// path: the names of the command and the commands above it.
func described(path string, cmd *cobra.Command) *cobra.Command {
	h := helpOf()[path]
	cmd.Use, cmd.Short, cmd.Long, cmd.Example = h.use, h.short, h.long, h.examples
	return cmd
}
