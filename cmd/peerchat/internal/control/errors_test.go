package control

import (
	"errors"
	"fmt"
	"testing"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// A command can tell apart what the daemon could: an error matches there what it
// matched here, whatever its words.
func TestErrorsKeepTheirMeaningOnTheWayToACommand(t *testing.T) {
	all := []error{peerlink.ErrNoListener, peerlink.ErrDeclined, peerlink.ErrRefused, identity.ErrRevoked, identity.ErrBanned, identity.ErrNotTrusted, ErrNotFound}
	for _, err := range append([]error{
		&multiplex.DeclinedError{Code: channel.CodeNoListener}, &multiplex.DeclinedError{Reason: "nobody listens on x"}, errors.New("device 01234567 is banned here"),
	}, all[1:]...) {
		there := error(asError(fmt.Errorf("connect: %w", err)))
		for _, target := range all {
			if errors.Is(there, target) != errors.Is(err, target) {
				t.Errorf("%q: matches %q here: %t, and there: %t", err, target, errors.Is(err, target), errors.Is(there, target))
			}
		}
	}
}
