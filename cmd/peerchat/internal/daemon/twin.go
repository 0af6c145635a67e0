package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"peerlink/account"
)

// ErrTwin is matched by Why when the daemon has ended because another process
// acts as the same device, and began earlier.
var ErrTwin = errors.New("this device runs twice")

// watchTwin waits for another process of this device. Of the two the one that
// began later ends: they would take each other's calls and links away for ever.
func (d *Daemon) watchTwin(ctx context.Context) {
	t, err := d.acc.Twin(ctx)
	if err != nil {
		return
	}
	said := twinText(t)
	d.mu.Lock()
	d.twin = said
	if t.Yields {
		d.why = fmt.Errorf("%w: %s", ErrTwin, said)
	}
	d.mu.Unlock()
	d.log.Error(said)
	if t.Yields {
		d.stop()
	}
}

func twinText(t account.Twin) string {
	const advice = "an account's folder was copied; each machine needs a device of its own: move the copy's folder away there, and take the new one into the account (peerchat device add, device sign)"
	at := t.Started.UTC().Format(time.RFC3339)
	if t.Yields {
		return fmt.Sprintf("another process acts as this very device since %s, so this one ends: %s", at, advice)
	}
	return fmt.Sprintf("another process acted as this very device, since %s, and was told to end: %s", at, advice)
}

// Why tells why the daemon has ended by itself; nil where a command has asked for
// it, or it has not.
func (d *Daemon) Why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

// trouble is what is wrong, for people.
func (d *Daemon) trouble() []string {
	revoked := slices.Contains(d.ownRevoked(), d.acc.Identity().DeviceID())
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.problems)
	if d.twin != "" {
		out = append(out, d.twin)
	}
	if revoked {
		out = append(out, "this device was revoked by its account: its contacts refuse it")
	}
	return out
}
