package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"peerlink/internal/escape"
)

// maxLine is how long a chat line may be, in bytes; longer ones come in pieces.
const maxLine = 64 << 10

// isTerminal reports whether w is a character device.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// printable escapes what could move a cursor, hide or turn text: a peer's
// words must not write anything but words.
func printable(s string) string { return escape.Line(s) }

// lines calls each with the lines of r, without their ends, until r ends.
func lines(r io.Reader, each func(string) error) error {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			if err := each(strings.TrimRight(string(line), "\r\n")); err != nil {
				return err
			}
		}
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// printer writes lines from several goroutines without mixing them.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

// printerOf is for the standard output of a command.
func printerOf(cmd *cobra.Command) *printer { return &printer{out: cmd.OutOrStdout()} }

// result prints v as JSON if that is wanted, or else the lines.
func (o *options) result(cmd *cobra.Command, v any, lines ...string) {
	p := printerOf(cmd)
	if o.json {
		p.json(v)
		return
	}
	for _, l := range lines {
		p.print(l)
	}
}

func (p *printer) print(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.out, s+"\n")
}

func (p *printer) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types of this program are given
	}
	p.print(string(b))
}
