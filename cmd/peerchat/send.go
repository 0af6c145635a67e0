package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/transfer"
)

// maxAtOnce is how many files are under way at once; more only wait on the disk.
const maxAtOnce = 4

// newSend is the command that sends files.
func newSend(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "send DEVICE[@HOST:PORT] FILE...",
		Short: "Send files to a device",
		Long:  "Send files to a device, several at once over one connection. It ends when the\nreceiver has verified and kept them all.",
		Args:  usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			for _, name := range args[1:] { // before anything is sent
				if err := sendable(name); err != nil {
					return err
				}
			}
			acc, err := o.startFor(cmd, to)
			if err != nil {
				return err
			}
			defer acc.Close()
			var bars io.Writer
			if !o.json && isTerminal(cmd.ErrOrStderr()) {
				bars = cmd.ErrOrStderr()
			}
			return sendFiles(cmd.Context(), acc.ConnectionManager(), to.device, args[1:], bars, &printer{out: cmd.OutOrStdout()}, o.json)
		},
	}
}

func sendable(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", name)
	}
	return transfer.CheckName(filepath.Base(name))
}

// sendFiles sends all files, a few at once, and reports each.
func sendFiles(ctx context.Context, m *peerlink.ConnectionManager, device identity.DeviceID, names []string, bars io.Writer, p *printer, asJSON bool) error {
	progress := mpb.NewWithContext(ctx, mpb.WithOutput(bars))
	errs, reports := make([]error, len(names)), make([]fileReport, len(names))
	places := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			r, err := sendFile(ctx, m, device, name, progress)
			errs[i] = err
			e := event{Step: "file", OK: err == nil, From: device, File: &r}
			if err != nil {
				e.Error = err.Error()
			}
			if asJSON {
				p.json(e)
			}
			reports[i] = r
		})
	}
	wg.Wait()
	progress.Wait()
	for i, r := range reports { // as sha256sum does; not among the bars
		if r.OK && !asJSON {
			p.print(fmt.Sprintf("%s  %s", r.SHA256, names[i]))
		}
	}
	return errors.Join(errs...)
}

// sendFile sends one file over a channel of its own.
func sendFile(ctx context.Context, m *peerlink.ConnectionManager, device identity.DeviceID, name string, progress *mpb.Progress) (fileReport, error) {
	base := filepath.Base(name)
	r := fileReport{Name: base}
	f, err := os.Open(name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return r, err
	}
	r.Bytes = st.Size()
	c, err := m.ConnectDevice(ctx, device, "file://"+base, peerlink.ConnectOptions{})
	if err != nil {
		return r, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	speed := speedometer{began: time.Now()}
	bar := progress.AddBar(r.Bytes,
		mpb.PrependDecorators(decor.Name(base, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(speed.show, decor.WCSyncSpace), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), " verified")))
	sum, err := transfer.Send(c, base, r.Bytes, f, func(n int) {
		speed.last.Store(int64(time.Since(speed.began)))
		bar.IncrBy(n)
	})
	if err != nil {
		bar.Abort(false)
		return r, err
	}
	bar.SetTotal(r.Bytes, true)
	r.SHA256, r.OK = fmt.Sprintf("%x", sum), true
	return r, nil
}

// speedometer shows a file's mean speed, up to its last byte. The bars'
// library has one that stays empty for a file that is done before it is drawn.
type speedometer struct {
	began time.Time
	last  atomic.Int64 // nanoseconds from began to the last bytes
}

func (m *speedometer) show(s decor.Statistics) string {
	took := time.Duration(m.last.Load())
	if took == 0 || s.Current == 0 {
		return ""
	}
	return humanize.IBytes(uint64(float64(s.Current)/took.Seconds())) + "/s"
}
