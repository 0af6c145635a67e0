package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/identity"
)

const (
	// maxBars is up to how many files have a bar of their own; more share one.
	maxBars = 12
	// maxHeld is how many results wait until the bars are done.
	maxHeld = 1000
)

// fileReport is what became of a file, in --json.
type fileReport struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"` // in the demo's summary
	BLAKE3 string `json:"blake3,omitempty"`
	OK     bool   `json:"ok"`
	Same   bool   `json:"same,omitempty"` // it was there already
	At     int64  `json:"at,omitempty"`   // of one that is not whole: how much of it is there
	Part   string `json:"part,omitempty"` // and where
}

// offerReport is what is to be sent, in --json.
type offerReport struct {
	Names []string `json:"names"`
	Files int64    `json:"entries"`
	Bytes int64    `json:"bytes"`
}

// transferLine is a transfer's beginning or end, in --json.
type transferLine struct {
	Step    string            `json:"step"`
	OK      bool              `json:"ok"`
	From    identity.DeviceID `json:"from"`
	Contact string            `json:"contact,omitempty"` // this account's name for it
	Offer   *offerReport      `json:"offer,omitempty"`
	Kept    int               `json:"kept,omitempty"`
	Same    int               `json:"same,omitempty"`
	Failed  int               `json:"failed,omitempty"`
	Skipped int               `json:"skipped,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"`
	Error   string            `json:"error,omitempty"`
}

func summaryLine(step string, device identity.DeviceID, s parcel.Summary, err error) transferLine {
	l := transferLine{Step: step, OK: err == nil, From: device, Kept: s.Kept, Same: s.Same, Failed: s.Failed, Skipped: s.Skipped, Bytes: s.Bytes}
	if err != nil {
		l.Error = err.Error()
	}
	return l
}

// show tells of a transfer: as bars on a terminal, as JSON, as lines.
type show struct {
	p       *printer
	asJSON  bool
	device  identity.DeviceID // the other one
	from    string            // who sends; empty if this device does
	contact string            // the sender's name, if it is a contact
	mute    func() bool       // whether this failure is not told; nil: all are

	mu    sync.Mutex
	bars  *bars    // nil: there are none
	held  []string // results, until the bars are done
	more  int      // results that were not held
	offer parcel.Offer
	saw   bool // the offer
}

func newShow(cmd *cobra.Command, o *options, device identity.DeviceID) *show {
	s := &show{p: printerOf(cmd), asJSON: o.json, device: device}
	if !o.json && isTerminal(cmd.ErrOrStderr()) {
		s.bars = &bars{out: cmd.ErrOrStderr()}
	}
	return s
}

// offered returns how many entries were offered, and whether there was an offer.
func (s *show) offered() (entries int64, began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offer.Entries, s.saw
}

// event is a Watch.
func (s *show) event(e parcel.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == parcel.Offered {
		s.offer, s.saw = e.Offer, true
	}
	if s.bars != nil {
		s.bars.event(e)
	}
	if e.Err != nil && s.mute != nil && s.mute() {
		return
	}
	switch {
	case s.asJSON:
		s.json(e)
	case e.Kind == parcel.Kept && e.Folder:
	case s.from != "":
		s.arrived(e)
	case e.Kind == parcel.Kept || e.Kind == parcel.Same:
		s.result(fmt.Sprintf("%x  %s", e.Sum, printable(e.Path)))
	case e.Kind == parcel.Cut && e.Path == "" && s.bars != nil:
		s.bars.note(e.Err.Error())
	}
}

// arrived tells of a file that was sent to this device.
func (s *show) arrived(e parcel.Event) {
	part := ""
	if e.Part != "" {
		part = fmt.Sprintf("; %s of %s are kept in %s", humanize.IBytes(uint64(e.At)), humanize.IBytes(uint64(e.Size)), e.Part)
	}
	switch {
	case e.Kind == parcel.Kept:
		s.result(fmt.Sprintf("-- %s from %s, %s, blake3 %x", printable(e.Name), s.from, humanize.IBytes(uint64(e.Size)), e.Sum))
	case e.Kind == parcel.Same:
		s.result(fmt.Sprintf("-- %s from %s, is here already, blake3 %x", printable(e.Name), s.from, e.Sum))
	case e.Kind == parcel.Failed && !errors.Is(e.Err, parcel.ErrRefused), e.Kind == parcel.Cut && e.Path != "":
		s.result(fmt.Sprintf("-- %s from %s failed: %s%s", printable(e.Path), s.from, printable(e.Err.Error()), part))
	}
}

// result prints a line, after the bars.
func (s *show) result(line string) {
	switch {
	case s.bars == nil:
		s.p.print(line)
	case len(s.held) < maxHeld:
		s.held = append(s.held, line)
	default:
		s.more++
	}
}

func (s *show) json(e parcel.Event) {
	switch {
	case e.Kind == parcel.Moved || e.Folder && e.Err == nil:
		return
	case e.Kind == parcel.Offered:
		s.p.json(transferLine{Step: "offer", OK: true, From: s.device, Contact: s.contact, Offer: &offerReport{e.Offer.Names, e.Offer.Entries, e.Offer.Bytes}})
		return
	case e.Kind == parcel.Cut && e.Path == "":
		s.p.json(transferLine{Step: "cut", From: s.device, Contact: s.contact, Error: e.Err.Error()})
		return
	}
	s.p.json(s.line(e))
}

// line is an entry's outcome.
func (s *show) line(e parcel.Event) event {
	l := event{Step: "file", OK: e.Err == nil, From: s.device, Contact: s.contact, File: &fileReport{
		Name: e.Path, Bytes: e.Size, OK: e.Err == nil, Same: e.Kind == parcel.Same, At: e.At, Part: e.Part,
	}}
	if e.Name != "" && s.from != "" { // the receiver's name for it
		l.File.Name = e.Name
	}
	switch {
	case e.Kind == parcel.Cut:
		l.Step = "file cut"
		l.Error = e.Err.Error()
	case e.Err != nil:
		l.Error = e.Err.Error()
	default:
		l.File.BLAKE3 = fmt.Sprintf("%x", e.Sum)
	}
	return l
}

// close ends the bars and prints what waited for that.
func (s *show) close() {
	if s.bars != nil {
		s.bars.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.held {
		s.p.print(l)
	}
	if s.more > 0 {
		s.p.print(fmt.Sprintf("and %d more", s.more))
	}
	s.held, s.more = nil, 0
}

// bars are a transfer's, on a terminal.
type bars struct {
	out   io.Writer
	over  io.Writer // draws on out, and only where nothing else is; nil: out does
	p     *mpb.Progress
	files map[string]*fileBar
	total *fileBar         // instead of bars for each
	at    map[string]int64 // of files under way
}

// fileBar is a bar with its speed.
type fileBar struct {
	*mpb.Bar
	began time.Time
	from  int64 // where it began: after a cut not at 0

	mu   sync.Mutex
	last time.Duration // from began to the last bytes
}

func (b *bars) event(e parcel.Event) {
	switch e.Kind {
	case parcel.Offered:
		b.p = b.container()
		b.files, b.at = map[string]*fileBar{}, map[string]int64{}
		if e.Offer.Entries > maxBars {
			b.total = b.add(fmt.Sprintf("%d files and folders", e.Offer.Entries), e.Offer.Bytes, 0, "done")
		}
	case parcel.Moved:
		if b.total != nil {
			b.total.to(b.total.Current() + e.At - b.at[e.Path])
			b.at[e.Path] = e.At
			return
		}
		if b.files[e.Path] == nil {
			b.files[e.Path] = b.add(printable(e.Path), e.Size, e.At, "verified")
		}
		b.files[e.Path].to(e.At)
	case parcel.Kept, parcel.Same:
		if b.total != nil {
			b.total.to(b.total.Current() + e.Size - b.at[e.Path])
			delete(b.at, e.Path)
		}
		if f := b.files[e.Path]; f != nil {
			f.SetTotal(e.Size, true)
		}
	case parcel.Failed:
		delete(b.at, e.Path)
		if f := b.files[e.Path]; f != nil {
			f.Abort(false)
		}
	}
}

func (b *bars) container() *mpb.Progress {
	f, ok := b.out.(*os.File)
	if b.over == nil || !ok {
		return mpb.New(mpb.WithOutput(b.out))
	}
	w := cupwriter.New(b.over, false)
	w.SetTermFd(int(f.Fd()))
	return mpb.New(mpb.WithConsoleWriter(w))
}

func (b *bars) add(name string, size, at int64, done string) *fileBar {
	f := &fileBar{began: time.Now(), from: at}
	f.Bar = b.p.AddBar(size,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(f.speed, decor.WCSyncSpace), decor.OnComplete(decor.Any(f.left, decor.WCSyncSpace), " "+done)))
	return f
}

func (f *fileBar) to(at int64) {
	f.mu.Lock()
	f.last = time.Since(f.began)
	f.mu.Unlock()
	f.SetCurrent(at)
}

// rate is the mean speed in bytes a second, up to the last bytes. The library's
// own counts what was there before a cut, and is empty for a file that is done
// before it is drawn.
func (f *fileBar) rate(s decor.Statistics) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last <= 0 || s.Current <= f.from {
		return 0
	}
	return float64(s.Current-f.from) / f.last.Seconds()
}

func (f *fileBar) speed(s decor.Statistics) string {
	r := f.rate(s)
	if r == 0 {
		return ""
	}
	return humanize.IBytes(uint64(r)) + "/s"
}

func (f *fileBar) left(s decor.Statistics) string {
	r := f.rate(s)
	if r == 0 {
		return ""
	}
	return time.Duration(float64(s.Total-s.Current) / r * float64(time.Second)).Round(time.Second).String()
}

// note writes a line above the bars.
func (b *bars) note(line string) {
	if b.p == nil {
		return
	}
	_, _ = fmt.Fprintln(b.p, printable(line))
}

// close ends all bars, whether they are full or not.
func (b *bars) close() {
	if b.p == nil {
		return
	}
	if b.total != nil {
		b.total.Abort(false)
		if len(b.at) == 0 && b.total.Current() > 0 {
			b.total.SetTotal(b.total.Current(), true)
		}
	}
	for _, f := range b.files {
		f.Abort(false) // does nothing to one that is complete
	}
	b.p.Wait()
	b.p = nil
}
