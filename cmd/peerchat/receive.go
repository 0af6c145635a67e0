package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"peerlink"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/identity"
)

// receivedFile, in the account's folder, has hashes of what each sender has sent.
const receivedFile = "received"

// maxLooks is how many senders are looked up at once, in contacts and own devices.
const maxLooks = 16

// maxFaults is how many failures of strangers are told at once, and then one each
// second: they cost a stranger nothing, and fill a log.
const maxFaults = 1000

// takeFlags say which files are taken, and where to.
type takeFlags struct {
	into    string
	accept  string
	max     string
	files   int
	replace bool

	policy string // accept, and most what max says, once they were checked
	most   int64
}

func (f *takeFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.accept, "accept", "", "whose files to take: always, contacts, or ask about others (default ask on a terminal, else contacts)")
	cmd.Flags().StringVar(&f.max, "max-size", "", "most to take at once, such as 10GiB (default what has room)")
	cmd.Flags().IntVar(&f.files, "max-files", parcel.DefaultEntries, "most files and folders to take at once; from strangers a quarter of it at once, and as many in a day")
	cmd.Flags().BoolVar(&f.replace, "overwrite", false, "replace files of the same name; otherwise they get a number")
}

// newReceive is the command that takes files.
func newReceive(o *options) *cobra.Command {
	f := takeFlags{into: "."}
	var once, clean bool
	cmd := described("receive", &cobra.Command{
		Args: counted(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.into = args[0]
			}
			switch {
			case clean && once:
				return usageError{errors.New("--clean and --once: choose one")}
			case clean:
				return o.clean(cmd, f.into)
			}
			return o.taking(cmd, f, func(s *session, t *taker) error { return t.receive(s, once) })
		},
	})
	f.register(cmd)
	cmd.Flags().BoolVar(&clean, "clean", false, "remove all incomplete files that nobody is receiving now, and end")
	cmd.Flags().BoolVar(&once, "once", false, "end after one transfer, with its outcome; an offer of a stranger that is refused is none")
	return cmd
}

// taking checks the flags, says whose files are taken, and opens the folder and
// the way to the account for do.
func (o *options) taking(cmd *cobra.Command, f takeFlags, do func(s *session, t *taker) error) error {
	if err := f.check(cmd, o); err != nil {
		return err
	}
	return o.with(cmd, func(s *session) error {
		if o.json {
			printerOf(cmd).json(map[string]any{"step": "policy", "ok": true, "accept": f.policy})
		} else {
			fmt.Fprintf(cmd.ErrOrStderr(), "files are taken from %s\n", policies[f.policy])
		}
		t, err := o.newTaker(cmd, s, f)
		if err != nil {
			return err
		}
		defer t.close()
		return do(s, t)
	})
}

// receive takes files until the command or the daemon ends, or with once until a
// transfer has ended.
func (t *taker) receive(s *session, once bool) error {
	t.withBars = true
	ctx, stop := context.WithCancel(t.cmd.Context())
	defer stop()
	ended, tell := firstError()
	if once {
		t.ended = tell
	}
	if err := t.serve(ctx, s, tell); err != nil {
		return err
	}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	if t.o.json {
		t.p.json(map[string]any{"step": "ready", "ok": true, "device": st.Self.Device, "tcp": st.Listens})
	} else {
		fmt.Fprintf(t.cmd.ErrOrStderr(), "this device is %s\n", st.Self.Device)
	}
	go func() {
		_ = lines(t.cmd.InOrStdin(), func(line string) error { t.consent.prompt.typed(line); return nil })
	}()
	return await(ctx, ended)
}

// taker takes files that others send.
type taker struct {
	cmd      *cobra.Command
	o        *options
	p        *printer
	folder   *inbox.Folder
	rec      *parcel.Receiver
	consent  *consent
	faults   *rate.Limiter // of what is told of strangers' failures
	missed   atomic.Int64  // failures that were not
	looks    chan struct{} // a place for each sender that is looked up
	swept    func()        // waits for the end of the sweep
	withBars bool
	// ended, if not nil, is told of each transfer that has ended.
	ended func(err error)
}

// check settles who may send, and how much, before anything is begun.
func (f *takeFlags) check(cmd *cobra.Command, o *options) (err error) {
	if f.files < 1 {
		return usageError{fmt.Errorf("--max-files %d: want one at least", f.files)}
	}
	terminal := isTerminal(cmd.InOrStdin()) && isTerminal(cmd.ErrOrStderr()) && !o.json
	if f.policy, err = acceptPolicy(f.accept, terminal); err != nil || f.max == "" {
		return err
	}
	most, err := humanize.ParseBytes(f.max)
	if err != nil || most == 0 || most > 1<<62 {
		return usageError{fmt.Errorf("--max-size %q: want a size such as 500MB or 10GiB", f.max)}
	}
	f.most = int64(most)
	return nil
}

// newTaker opens the folder. The flags were checked.
func (o *options) newTaker(cmd *cobra.Command, s *session, f takeFlags) (*taker, error) {
	folder, err := inbox.Open(f.into)
	if err != nil {
		return nil, err
	}
	if err := folder.Remember(filepath.Join(o.account, receivedFile)); err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	c := newConsent(f.policy, s, cmd.ErrOrStderr())
	t := &taker{cmd: cmd, o: o, p: &printer{out: c.prompt.beside(cmd.OutOrStdout())}, folder: folder, consent: c, looks: make(chan struct{}, maxLooks), faults: rate.NewLimiter(1, maxFaults)}
	t.rec = parcel.NewReceiver(parcel.Config{Folder: folder, Consent: t.consent.decide, MaxBytes: f.most, MaxEntries: f.files, Replace: f.replace})
	t.swept = t.sweep()
	return t, nil
}

func (t *taker) close() {
	t.swept()
	_ = t.folder.Close()
}

// serve takes the channels of transfers until ctx ends; failed is told why it
// cannot go on.
func (t *taker) serve(ctx context.Context, s *session, failed func(error)) error {
	l, err := s.client.Listen(ctx, parcel.Scheme+"*")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed(err)
				return
			}
			t.looks <- struct{}{}
			go t.take(ctx, c)
		}
	}()
	return nil
}

// take receives what comes over one channel.
func (t *taker) take(ctx context.Context, c net.Conn) {
	peer, _ := peerlink.PeerOf(c)
	known := t.consent.know(ctx, peer)
	<-t.looks
	sh := &show{p: t.p, asJSON: t.o.json, device: peer.Device, from: known.name, contact: known.contact}
	if t.withBars && !t.o.json && isTerminal(t.cmd.ErrOrStderr()) {
		sh.bars = &bars{out: t.cmd.ErrOrStderr(), over: &frames{p: t.consent.prompt}}
	}
	sh.mute = func() bool { return !known.member && !t.faulty() }
	done, err := t.rec.Serve(ctx, c, parcel.Peer{
		ID: peer.Device.String(), Name: known.name, Member: known.member,
	}, sh.event)
	sh.close()
	if err == nil || !sh.mute() {
		t.tell(sh, known, done, err)
	}
	if _, taken := sh.offered(); t.ended != nil && (known.member || taken) && isOutcome(err) {
		t.ended(err) // what was not taken of a stranger is none: it could end the command so
	}
}

// faulty reports whether a stranger's failure is told. It tells how many were not.
func (t *taker) faulty() bool {
	if !t.faults.Allow() {
		t.missed.Add(1)
		return false
	}
	if n := t.missed.Swap(0); n > 0 && !t.o.json {
		t.p.print(fmt.Sprintf("-- %d failures of strangers were not told", n))
	} else if n > 0 {
		t.p.json(map[string]any{"step": "not told", "ok": false, "failures": n})
	}
	return true
}

// isOutcome reports whether the transfer came to its end, if not a good one. One
// that had no place was none.
func isOutcome(err error) bool {
	return err == nil || !errors.Is(err, parcel.ErrTooMany) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled)
}

// tell says how a transfer ended.
func (t *taker) tell(sh *show, from visitor, done parcel.Summary, err error) {
	all, _ := sh.offered()
	switch {
	case t.o.json:
		line := summaryLine("received", sh.device, done, err)
		line.Contact = from.contact
		t.p.json(line)
	case errors.Is(err, parcel.ErrRefused):
		why := strings.TrimPrefix(err.Error(), parcel.ErrRefused.Error()+": ")
		t.p.print(fmt.Sprintf("-- refused files from %s: %s", from.name, printable(why)))
		if errors.Is(err, errContactsOnly) {
			fmt.Fprintln(t.consent.prompt.beside(t.cmd.ErrOrStderr()), toTake(from, sh.device))
		}
	case err != nil:
		t.p.print(fmt.Sprintf("-- files from %s: %d there, not all: %s", from.name, done.Kept+done.Same, printable(err.Error())))
	case all > 1 && !t.o.json:
		t.p.print(fmt.Sprintf("-- %d from %s, %s", done.Kept+done.Same, from.name, humanize.IBytes(uint64(done.Bytes))))
	}
}

// toTake says how to take files from a device that is refused for what it is not.
func toTake(from visitor, device identity.DeviceID) string {
	switch {
	case from.moved:
		return "if that is right, to take what it sends: peerchat contacts moved " + printable(from.contact)
	case from.contact != "":
		return "to take what it sends: peerchat contacts allow " + printable(from.contact)
	}
	return "to take what it sends: peerchat contacts add NAME " + device.String()
}
