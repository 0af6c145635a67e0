package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"peerlink/internal/escape"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "charts:", err)
		os.Exit(1)
	}
}

// run is main without the process around it.
func run(args []string, in io.Reader, out, errOut io.Writer) error {
	f := flag.NewFlagSet("charts", flag.ContinueOnError)
	f.SetOutput(errOut)
	title := f.String("title", "peerchat bench", "what stands above the picture")
	names := f.String("only", "", "regular expression: only rows whose names match")
	unit := f.String("unit", "", "draw the values of this unit instead of ratios")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q: want flags only; the rows are read from standard input", f.Args())
	}
	only, err := regexp.Compile(*names)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	rows, err := read(in)
	if err != nil {
		return err
	}
	bs, err := bars(rows, only, *unit)
	if err != nil {
		return err
	}
	if !finite(bs) {
		return errors.New("a row is too far from its baseline to be drawn")
	}
	axis := "times as good as the baseline"
	if *unit != "" {
		axis = plain(*unit)
	}
	for i := range bs {
		bs[i].name, bs[i].label = plain(bs[i].name), plain(bs[i].label)
	}
	picture, err := svg(plain(*title), axis, bs, *unit == "")
	if err != nil {
		return err
	}
	_, err = out.Write(picture)
	return err
}

// plain is one line of words; XML has no place for control characters.
func plain(s string) string {
	s = strings.ReplaceAll(escape.Line(s), "\t", " ")
	if utf8.RuneCountInString(s) > maxName {
		s = string([]rune(s)[:maxName]) + "…"
	}
	return s
}
