package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// minDigits is how many of an id's hex digits name a device of the account.
const minDigits = 8

// deviceHandlers add what commands can ask about the account's devices.
func (d *Daemon) deviceHandlers(h control.Handlers) {
	control.OpDevices.On(h, func(context.Context, control.None) (control.Devices, error) { return d.ownDevices(), nil })
	control.OpRevoke.On(h, d.revoke)
	control.OpInvite.On(h, d.invite)
	control.OpAccept.On(h, d.accept)
	control.OpJoin.On(h, d.addDevice)
	control.OpSign.On(h, d.signDevice)
	control.OpRevoked.On(h, d.exportLists)
	control.OpImported.On(h, d.importLists)
}

// exportLists returns the account's revocation lists, to be handed on.
func (d *Daemon) exportLists(context.Context, control.None) (out []string, err error) {
	for _, l := range d.devices.ownRevocations() {
		text, err := l.MarshalText()
		if err != nil {
			return out, err
		}
		out = append(out, string(text))
	}
	return out, nil
}

// ownDevices lists the account's devices: this one first, revoked ones last.
func (d *Daemon) ownDevices() control.Devices {
	me := d.acc.Identity()
	out := control.Devices{Account: me.AccountID().String()}
	all := []identity.ListedDevice{{Device: me.DeviceID(), Name: me.Name()}}
	if l := d.acc.Devices(); l != nil {
		for _, k := range l.Devices() {
			if k.Device != me.DeviceID() {
				all = append(all, k)
			}
		}
	}
	revoked := d.ownRevoked()
	d.devices.mu.Lock()
	seen := d.devices.seen
	for _, k := range all {
		out.Devices = append(out.Devices, control.OwnDevice{Device: k.Device, Name: k.Name, LastSeen: seen[k.Device], Revoked: slices.Contains(revoked, k.Device)})
	}
	for _, id := range revoked {
		if !slices.ContainsFunc(all, func(k identity.ListedDevice) bool { return k.Device == id }) {
			out.Devices = append(out.Devices, control.OwnDevice{Device: id, LastSeen: seen[id], Revoked: true})
		}
	}
	d.devices.mu.Unlock()
	out.Devices[0].This, out.Devices[0].Signs, out.Devices[0].LastSeen = true, me.HoldsAccount(), time.Time{}
	for i := range out.Devices {
		out.Devices[i].Online = d.connected(out.Devices[i].Device)
	}
	return out
}

// ownRevoked returns the devices that the account has revoked, by id.
func (d *Daemon) ownRevoked() (out []identity.DeviceID) {
	for _, l := range d.devices.ownRevocations() {
		for _, s := range l.Revoked() {
			if id, is := s.(identity.DeviceID); is && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// revoke revokes devices, and tells all devices that have a link.
func (d *Daemon) revoke(ctx context.Context, names []string) (out control.Revoked, err error) {
	if len(names) == 0 {
		return out, errors.New("no device is named")
	}
	var who []identity.Subject
	for _, name := range names {
		id, err := d.ownDevice(name)
		if err != nil {
			return out, err
		}
		if id == d.acc.Identity().DeviceID() {
			return out, errors.New("that is this device, which holds the account's key: it cannot revoke itself")
		}
		who, out.Devices = append(who, id), append(out.Devices, id)
	}
	if !d.acc.Identity().HoldsAccount() {
		return out, errNoKey
	}
	l, err := d.acc.Revoke(who...)
	if err != nil {
		return out, err
	}
	out.Number = l.Number()
	out.Connected, out.Told = d.devices.push(ctx, identity.DeviceID{})
	return out, nil
}

// ownDevice returns the device of the account that is meant by a name, an id, or
// the beginning of one. An id may be of a device that is not listed.
func (d *Daemon) ownDevice(who string) (identity.DeviceID, error) {
	if id, err := identity.ParseDeviceID(who); err == nil {
		return id, nil
	}
	var found []identity.DeviceID
	for _, k := range d.ownDevices().Devices {
		if k.Name == who || len(who) >= minDigits && strings.HasPrefix(k.Device.String(), strings.ToLower(who)) {
			found = append(found, k.Device)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return identity.DeviceID{}, notThere(fmt.Errorf("%.100q is no device of this account (peerchat device list shows them)", who))
	}
	return identity.DeviceID{}, fmt.Errorf("%.100q means %d devices of this account: give the id (peerchat device list shows them)", who, len(found))
}

// importLists takes revocation lists that a person hands over.
func (d *Daemon) importLists(ctx context.Context, lists []string) (no control.None, err error) {
	for _, text := range lists {
		l, err := d.acc.ImportRevocations([]byte(text))
		if err != nil {
			return no, err
		}
		if l.Issuer() == d.acc.Identity().AccountID() {
			d.devices.push(ctx, identity.DeviceID{})
		}
	}
	return no, nil
}
