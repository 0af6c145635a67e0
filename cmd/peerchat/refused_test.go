package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
	"peerlink/multiplex"
)

// Whoever finds nobody at the other end is told what has to run there, and
// nothing of channels; all else is told as it is.
func TestARefusalIsToldInWords(t *testing.T) {
	declined := func(uri string) error {
		return fmt.Errorf("open: %w", &multiplex.DeclinedError{Name: uri, Code: channel.CodeNoListener, Reason: "niemand da"})
	}
	for uri, want := range map[string]string{
		pipeScheme + "log":     "peerchat pipe --listen --name log has to run there first",
		pipeScheme + "\x1b[2J": `--name \x1b[2J has`,
		chat.URI:               "peerchat run has to hold the account there",
		parcel.Scheme + "00":   "peerchat receive has to run there",
		forward.URIDial:        "peerchat run has to hold the account there",
		forward.URIListen:      "peerchat run has to hold the account there",
	} {
		for _, err := range []error{declined(uri), &control.Error{Code: "no-listener", Text: declined(uri).Error()}} {
			got := refusedInWords(uri, err)
			if !errors.Is(got, peerlink.ErrDeclined) || !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "declined") || strings.Contains(got.Error(), "\x1b") {
				t.Errorf("%q: %v, want %s", uri, got, want)
			}
		}
	}
	for _, as := range []error{
		fmt.Errorf("%w: %q", peerlink.ErrDeclined, "not now"), peerlink.ErrRefused, errors.New("nobody listens on x"), declined("test://x"),
		&multiplex.DeclinedError{Reason: "nobody listens on x"}, identity.ErrRevoked, errors.New("device 01234567 is banned here"),
	} {
		uri := pipeScheme + "x"
		if strings.Contains(as.Error(), "test://") {
			uri = "test://x"
		}
		if got := refusedInWords(uri, as); got != as {
			t.Errorf("%v became %v", as, got)
		}
	}
	// Each of several devices has its say.
	got := refusedInWords(pipeScheme+"x", errors.Join(declined(pipeScheme+"x"), errors.New("the phone is off"))).Error()
	if !strings.HasPrefix(got, "the device is there") || !strings.Contains(got, "\nthe phone is off") {
		t.Errorf("of two devices: %s", got)
	}
	for _, err := range []error{fmt.Errorf("device 01234567 is banned: %w", identity.ErrBanned), &control.Error{Code: "banned", Text: "it is banned"}} {
		if got := refusedInWords(pipeScheme+"x", err).Error(); !strings.Contains(got, "peerchat contacts allow") {
			t.Errorf("of a banned one: %s", got)
		}
	}
	// What to do about one that has moved stands in the error: it depends on whether the
	// device is a contact's.
	for _, err := range []error{&identity.MovedError{}, &control.Error{Code: "moved", Text: "it has moved"}} {
		if got := refusedInWords(pipeScheme+"x", err); got != err {
			t.Errorf("of one that has moved: %s", got)
		}
	}
}
