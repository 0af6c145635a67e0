package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "screenshot:", err)
		os.Exit(1)
	}
}

// run is main without the process around it.
func run(args []string, in io.Reader, out, errOut io.Writer) error {
	f := flag.NewFlagSet("screenshot", flag.ContinueOnError)
	f.SetOutput(errOut)
	title := f.String("title", "terminal", "what the picture shows, for those who do not see it")
	if err := f.Parse(args); err != nil {
		return err
	}
	lines, err := parse(in)
	if err != nil {
		return err
	}
	_, err = out.Write(svg(*title, lines))
	return err
}
