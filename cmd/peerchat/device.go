package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// newDevice is the command for the devices of the account.
func newDevice(o *options) *cobra.Command {
	cmd := plain("device", o.listDevices)
	cmd.Aliases = []string{"devices"}
	cmd.AddCommand(newDeviceAdd(o), newDeviceSign(o), newDeviceRevoke(o), plain("device list", o.listDevices))
	return cmd
}

// newDeviceAdd is the command of the new device.
func newDeviceAdd(o *options) *cobra.Command {
	var name string
	cmd := described("device add", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errors.New("the code is shown on the new device; on the old one it is typed after: peerchat device sign")
			}
			if name == "" {
				return nil
			}
			return identity.CheckName(name)
		}),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.joinAccount(cmd, name) },
	})
	cmd.Flags().StringVar(&name, "name", "", "what this device is to be called, as others see it (default as it is called now)")
	return cmd
}

// joinAccount shows a code, and starts the daemon anew once it was used.
func (o *options) joinAccount(cmd *cobra.Command, name string) error {
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	last, err := followCode(cmd, o, s, control.OpJoin, control.Join{Name: name},
		"Type this code on the device with which your account was made, after: peerchat device sign")
	if err != nil {
		return err
	}
	did := last.Joined
	if err := o.startAnew(cmd, s); err != nil {
		return fmt.Errorf("this device is in account %s now, but its daemon still is in the old one: %w", did.Account, err)
	}
	o.result(cmd, struct {
		Step string `json:"step"`
		OK   bool   `json:"ok"`
		*control.Joined
	}{"joined", true, did}, fmt.Sprintf("this device is %s of account %s now", printable(did.Name), did.Account))
	return nil
}

// startAnew has the daemon be the device that its folder has.
func (o *options) startAnew(cmd *cobra.Command, s *session) error {
	if s.close != nil { // it was in this process
		return s.Close()
	}
	if err := stopDaemon(cmd.Context(), s.client); err != nil && !errors.Is(err, control.ErrNoDaemon) {
		return err
	}
	_, err := o.reachDaemon(cmd)
	return err
}

// newDeviceSign is the command of the device that is in the account.
func newDeviceSign(o *options) *cobra.Command {
	var name string
	cmd := described("device sign", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			if name != "" {
				if err := identity.CheckName(name); err != nil {
					return err
				}
			}
			return counted(cobra.MaximumNArgs(3))(cmd, args)
		}),
		ValidArgsFunction: completeCodeArg,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.signDevice(cmd, strings.Join(args, "-"), name) },
	})
	cmd.Flags().StringVar(&name, "name", "", "what the new device is to be called (default what it suggests)")
	return cmd
}

func (o *options) signDevice(cmd *cobra.Command, typed, name string) error {
	code, err := codeOf(cmd, typed)
	if err != nil {
		return err
	}
	did, err := ask(cmd, o, control.OpSign, control.Sign{Code: code.String(), Name: name})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s (%s) is a device of this account now", printable(did.Name), did.Device)
	if did.Unsure {
		text += ", but has not said so: look there (peerchat device list), and if it is not, begin again"
	}
	o.result(cmd, did, text)
	return nil
}

func (o *options) listDevices(cmd *cobra.Command) error {
	all, err := ask(cmd, o, control.OpDevices, control.None{})
	if err != nil {
		return err
	}
	if o.json {
		printerOf(cmd).json(all)
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDEVICE\tSEEN\tSIGNS")
	for _, d := range all.Devices {
		name, seen, signs := printable(d.Name), "-", ""
		if name == "" {
			name = "?"
		}
		switch {
		case d.This:
			seen = "this device"
		case d.Revoked:
			seen = "revoked"
		case d.Online:
			seen = "connected"
		case !d.LastSeen.IsZero():
			seen = humanize.Time(d.LastSeen)
		}
		if d.Signs {
			signs = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, d.Device, seen, signs)
	}
	return w.Flush()
}

// newDeviceRevoke is the command that revokes.
func newDeviceRevoke(o *options) *cobra.Command {
	r := &revoker{o: o}
	cmd := described("device revoke", &cobra.Command{
		Args: usageArgs(r.check),
		RunE: r.run,
	})
	cmd.Flags().StringVar(&r.export, "export", "", "write the account's revocation lists to a file, - for standard output")
	cmd.Flags().StringVar(&r.take, "import", "", "take the revocation lists of a file, - for standard input")
	return cmd
}

type revoker struct {
	o            *options
	export, take string
}

func (r *revoker) check(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 && r.export == "" && r.take == "":
		return errors.New("name the devices to revoke, or --export or --import a list")
	case r.take != "" && (r.export != "" || len(args) > 0):
		return errors.New("--import goes with nothing else")
	}
	return nil
}

func (r *revoker) run(cmd *cobra.Command, args []string) error {
	var lists []string
	if r.take != "" { // before an account is made
		var err error
		if lists, err = readLists(cmd.InOrStdin(), r.take); err != nil {
			return err
		}
	}
	return r.o.with(cmd, func(s *session) error { return r.exchange(cmd, s, args, lists) })
}

// exchange takes the lists, or revokes and then writes what the account has
// revoked.
func (r *revoker) exchange(cmd *cobra.Command, s *session, args, lists []string) error {
	ctx := cmd.Context()
	if len(lists) > 0 {
		_, err := control.OpImported.Ask(ctx, s.client, lists)
		return err
	}
	if len(args) > 0 {
		if err := r.revoke(cmd, s, args); err != nil {
			return err
		}
	}
	if r.export == "" {
		return nil
	}
	all, err := control.OpRevoked.Ask(ctx, s.client, control.None{})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("this account has revoked nothing")
	}
	text := strings.Join(all, "")
	if r.export == "-" {
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return os.WriteFile(r.export, []byte(text), 0o644) //nolint:gosec // it is for everybody
}

func (r *revoker) revoke(cmd *cobra.Command, s *session, devices []string) error {
	did, err := control.OpRevoke.Ask(cmd.Context(), s.client, devices)
	if err != nil {
		return err
	}
	var lines []string
	for _, id := range did.Devices {
		lines = append(lines, fmt.Sprintf("revoked %s", id))
	}
	r.o.result(cmd, did, append(lines, fmt.Sprintf("told %d of %d connected devices; others hear of it with their next link", did.Told, did.Connected))...)
	return nil
}

// maxLists bounds what is read of a file of lists: some of the longest.
const maxLists = 1 << 20

// readLists reads the PEM blocks of a file, - for standard input, each by itself.
func readLists(in io.Reader, path string) ([]string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxLists+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxLists {
		return nil, fmt.Errorf("%s has more than %d bytes: it is no file of revocation lists", path, maxLists)
	}
	const end = "-----END PEERLINK REVOCATIONS-----"
	var lists []string
	for rest := string(b); strings.TrimSpace(rest) != ""; {
		one, after, _ := strings.Cut(rest, end)
		if _, err := identity.ParseRevocationList([]byte(one + end + "\n")); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		lists, rest = append(lists, one+end+"\n"), after
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("%s has no revocation list", path)
	}
	return lists, nil
}
