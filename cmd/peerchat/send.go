package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/cmd/peerchat/internal/files/parcel"
)

// newSend is the command that sends files and folders.
func newSend(o *options) *cobra.Command {
	var patience time.Duration
	cmd := o.toContact("send", counted(cobra.MinimumNArgs(2)), func(cmd *cobra.Command, args []string) error {
		to, err := o.target(args[0])
		if err != nil {
			return err
		}
		for _, path := range args[1:] { // before an account is made
			if _, err := os.Stat(path); err != nil {
				return err
			}
			if o.holdsKeys(path) {
				return usageError{fmt.Errorf("%s holds the keys of this account (%s), which nobody else may have: name the files to send one by one", path, o.account)}
			}
		}
		if patience <= 0 {
			patience = -1
		}
		return o.with(cmd, func(s *session) error { return o.send(cmd, s, to, patience, args[1:]) })
	})
	cmd.Flags().DurationVar(&patience, "retry", time.Minute, "how long to try again after a cut without anything getting through; 0: not at all")
	return cmd
}

// holdsKeys reports whether a file or folder is a key of the account, or has the
// account's folder in it.
func (o *options) holdsKeys(path string) bool {
	path, account := resolved(path), resolved(o.account)
	if path == "" || account == "" {
		return false // sending it says why; or there is no account yet
	}
	in, err := filepath.Rel(path, account)
	return err == nil && filepath.IsLocal(in) || filepath.Dir(path) == account && strings.HasPrefix(filepath.Base(path), "identity")
}

// resolved is the absolute path without symbolic links; "" where there is none.
func resolved(path string) string {
	path, err := filepath.EvalSymlinks(path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// send sends, and tells of each file.
func (o *options) send(cmd *cobra.Command, s *session, to target, patience time.Duration, paths []string) error {
	ctx := cmd.Context()
	show := newShow(cmd, o, to.device)
	done, err := parcel.Send(ctx, parcel.SendConfig{Open: s.opener(to), Watch: show.event, Patience: patience}, paths...)
	show.close()
	if o.json {
		show.p.json(summaryLine("sent", to.device, done, err))
	}
	there := int64(done.Kept + done.Same)
	all, began := show.offered()
	switch {
	case err == nil, !began, errors.Is(err, parcel.ErrRefused), errors.Is(err, parcel.ErrNotServed) && there == 0:
	case there < all:
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d are there. What has arrived of the others is kept: the same command goes on with it.\n", there, all)
	case done.Skipped > 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "%d are there; %d cannot be sent:\n", there, done.Skipped)
	}
	return err
}

// notServed is an error that a transfer knows for parcel.ErrNotServed.
type notServed struct{ error }

// Is tells that the device takes no such channels.
func (n notServed) Is(target error) bool { return target == parcel.ErrNotServed }

// Unwrap returns the error.
func (n notServed) Unwrap() error { return n.error }

// opener opens channels to a device for a transfer.
func (s *session) opener(to target) func(ctx context.Context, uri string) (net.Conn, error) {
	var mu sync.Mutex // guards to
	return func(ctx context.Context, uri string) (net.Conn, error) {
		mu.Lock()
		now := to
		mu.Unlock()
		c, err := s.connect(ctx, now, uri)
		switch {
		case errors.Is(err, peerlink.ErrDeclined):
			return nil, notServed{err}
		case err != nil:
			return nil, err
		}
		if peer, ok := peerlink.PeerOf(c); ok && now.any { // what was begun goes on there
			mu.Lock()
			to.device, to.any = peer.Device, false
			mu.Unlock()
		}
		return c, nil
	}
}
