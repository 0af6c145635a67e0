package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/files/inbox"
)

// cleanLine tells, in --json, of incomplete files that were removed.
type cleanLine struct {
	Step  string `json:"step"`
	OK    bool   `json:"ok"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"`
}

func cleaned(gone []inbox.Abandoned, err error) cleanLine {
	l := cleanLine{Step: "clean", OK: err == nil, Files: len(gone)}
	for _, a := range gone {
		l.Bytes += a.Size
	}
	if err != nil {
		l.Error = err.Error()
	}
	return l
}

// sweep removes what was abandoned long ago, beside all else: the folder may be
// large. What it returns ends that, and waits for it.
func (t *taker) sweep() (stop func()) {
	ctx, cancel := context.WithCancel(t.cmd.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		gone, err := t.folder.Sweep(ctx, inbox.Rule{})
		if l := cleaned(gone, err); l.Files > 0 {
			fmt.Fprintf(t.cmd.ErrOrStderr(), "removed %d incomplete files, %s, that nobody has gone on with for long\n", l.Files, humanize.IBytes(uint64(l.Bytes)))
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(t.cmd.ErrOrStderr(), "old incomplete files were not all removed: %v\n", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// clean removes all incomplete files that nobody is receiving.
func (o *options) clean(cmd *cobra.Command, dir string) error {
	if _, err := os.Stat(dir); err != nil { // inbox.Open would make it
		return err
	}
	folder, err := inbox.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	gone, err := folder.Sweep(cmd.Context(), inbox.Rule{Age: 1})
	p, l := printerOf(cmd), cleaned(gone, err)
	if o.json {
		p.json(l)
		return err
	}
	for _, a := range gone {
		p.print(fmt.Sprintf("%s, %s, last written %s", printable(a.Name), humanize.IBytes(uint64(a.Size)), humanize.Time(a.Touched)))
	}
	p.print(fmt.Sprintf("%d incomplete files removed, %s", l.Files, humanize.IBytes(uint64(l.Bytes))))
	return err
}
