package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
)

// names are the flags of both ends of a code.
type names struct{ them, me string }

func (n *names) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&n.them, "name", "", "what to call the other here (default what they suggest)")
	cmd.Flags().StringVar(&n.me, "me", "", "what to suggest to be called (default this device's name)")
}

func (n *names) check() error {
	if n.them == "" {
		return nil
	}
	return contacts.CheckName(n.them)
}

// newInvite is the command that makes a code.
func newInvite(o *options) *cobra.Command {
	var n names
	var within time.Duration
	cmd := described("contacts invite", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			if within <= 0 || within > codes.Life {
				return fmt.Errorf("--timeout %v: want more than 0 and at most %v", within, codes.Life)
			}
			return errors.Join(n.check(), noArgs(cmd, args))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.invite(cmd, n, within) },
	})
	n.register(cmd)
	cmd.Flags().DurationVar(&within, "timeout", codes.Life, "how long the code is good, 10m at most")
	return cmd
}

func (o *options) invite(cmd *cobra.Command, n names, within time.Duration) error {
	return o.with(cmd, func(s *session) error {
		_, err := followCode(cmd, o, s, control.OpInvite, control.Invite{Name: n.them, Me: n.me, Within: within},
			"Tell this code to one person. They type it after: peerchat contacts accept")
		return err
	})
}

// errLastStep ends the following of a code that was used.
var errLastStep = errors.New("the code was used")

// followCode has a code made and shows what happens to it until it was used.
func followCode[In any](cmd *cobra.Command, o *options, s *session, feed control.Feed[In, control.CodeEvent], ask In, hint string) (control.CodeEvent, error) {
	if err := s.ready(cmd.Context()); err != nil && cmd.Context().Err() == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "others cannot reach this device yet: %v\n", err)
	}
	v := codeView{json: o.json, p: printerOf(cmd), note: cmd.ErrOrStderr(), hint: hint}
	err := feed.Follow(cmd.Context(), s.client, ask, nil, v.show)
	switch {
	case errors.Is(err, errLastStep):
		err = nil
	case v.last.Step != "" && v.json && cmd.Context().Err() == nil:
		v.p.json(codeLine{Step: "over", Error: err.Error()})
	}
	return v.last, err
}

// codeView shows the steps of a code.
type codeView struct {
	json bool
	p    *printer
	note io.Writer
	hint string // what to do with the code
	last control.CodeEvent
}

// codeLine is a line of --json.
type codeLine struct {
	Step string `json:"step"`
	OK   bool   `json:"ok"`
	// Code, Until and Left are of the steps code and wrong.
	Code  string     `json:"code,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	Left  *int       `json:"left,omitempty"`
	*control.Met
	Error string `json:"error,omitempty"`
}

// show shows one step; the last one's error is errLastStep.
func (v *codeView) show(e control.CodeEvent) error {
	v.last = e
	line := codeLine{Step: e.Step, Error: e.Why}
	out, note := "", ""
	switch e.Step {
	case control.CodeShown:
		line.OK, line.Code, line.Until = true, e.Code, &e.Until
		out, note = e.Code, fmt.Sprintf("%s\nIt is good once, until %s.\n", v.hint, e.Until.Local().Format(time.TimeOnly))
	case control.CodeWrong:
		line.Left, note = &e.Left, fmt.Sprintf("Somebody tried wrong words; %d more tries are left.\n", e.Left)
	case control.CodeNote:
		note = fmt.Sprintf("somebody has come, and did not sign: %s\n", printable(e.Why))
	default:
		if e.Met == nil {
			return errLastStep
		}
		line.OK, line.Step, line.Met, out = true, "contact", e.Met, metText(*e.Met)
	}
	switch {
	case v.json:
		v.p.json(line)
	default:
		_, _ = io.WriteString(v.note, note)
		if out != "" {
			v.p.print(out)
		}
	}
	if e.Step == control.CodeUsed {
		return errLastStep
	}
	return nil
}

func metText(m control.Met) string {
	text := fmt.Sprintf("%s %s", printable(m.Name), m.Device)
	if m.Known {
		text += " (was a contact before)"
	}
	if m.Unsure {
		text += " (has not said that this device is its contact, too)"
	}
	return text
}

// newAccept is the command that uses a code.
func newAccept(o *options) *cobra.Command {
	var n names
	cmd := described("contacts accept", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return errors.Join(n.check(), counted(cobra.MaximumNArgs(3))(cmd, args))
		}),
		ValidArgsFunction: completeCodeArg,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.accept(cmd, n, strings.Join(args, "-")) },
	})
	n.register(cmd)
	return cmd
}

// completeCodeArg completes the one code of a command line.
func completeCodeArg(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return codes.Complete(typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// codeOf reads a code: the argument, or without one what is typed or piped in.
func codeOf(cmd *cobra.Command, typed string) (code codes.Code, err error) {
	if typed == "" {
		if typed, err = readCode(cmd); err != nil {
			return code, err
		}
	}
	if code, err = codes.Parse(typed); err != nil {
		return code, usageError{err}
	}
	return code, nil
}

func (o *options) accept(cmd *cobra.Command, n names, typed string) error {
	code, err := codeOf(cmd, typed)
	if err != nil {
		return err
	}
	met, err := ask(cmd, o, control.OpAccept, control.AcceptInvite{Code: code.String(), Name: n.them, Me: n.me})
	if err != nil {
		return err
	}
	o.result(cmd, codeLine{Step: "contact", OK: true, Met: &met}, metText(met))
	return nil
}

var errNoCode = errors.New("no code on standard input")

// readCode asks for a code.
func readCode(cmd *cobra.Command) (string, error) {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && isScreen(f) {
		return askCode(cmd.Context(), f, cmd.ErrOrStderr())
	}
	line, err := bufio.NewReader(io.LimitReader(in, 1024)).ReadString('\n')
	if strings.TrimSpace(line) == "" {
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return "", usageError{errNoCode}
	}
	return line, nil
}

// askCode reads a code from a terminal, with Tab for the rest of a word, and
// leaves the terminal as it was.
func askCode(ctx context.Context, in *os.File, out io.Writer) (string, error) {
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return "", err
	}
	defer func() { _ = term.Restore(int(in.Fd()), old) }()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "Code: ")
	t.AutoCompleteCallback = completeCode
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	go func() { // ends with the process at the latest, if a signal comes first
		line, err := t.ReadLine()
		got <- read{line, err}
	}()
	select {
	case r := <-got:
		if errors.Is(r.err, io.EOF) { // Ctrl-C and Ctrl-D
			return "", errors.New("no code was typed")
		}
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// completeCode is a term.Terminal's AutoCompleteCallback: Tab at the end of the
// line adds what all words have that it may become.
func completeCode(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || pos != len(line) {
		return "", 0, false
	}
	all := codes.Complete(line)
	if len(all) == 0 {
		return line, pos, true
	}
	common := all[0]
	for _, c := range all[1:] {
		for !strings.HasPrefix(c, common) {
			common = common[:len(common)-1]
		}
	}
	if len(all) == 1 && strings.Count(common, "-") == 1 {
		common += "-"
	}
	return common, len(common), true
}
