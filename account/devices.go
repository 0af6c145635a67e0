package account

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"peerlink/identity"
)

// devicesFile is the account's device list, where it has several devices: one
// PEM block. On the device that holds the account's key it is made there; the
// others learn it.
const devicesFile = "devices.pem"

// keptIdentity is where the identity stays that a device had before it came into
// another account: the only copy of that account's key.
func keptIdentity(id identity.AccountID) string { return keptPrefix + id.Short() + ".pem" }

const keptPrefix = "identity-"

// ErrOutdatedDevices is matched when a device list is not newer than the one
// that is held.
var ErrOutdatedDevices = errors.New("a newer device list is held")

// loadDevices reads the device list. One of another account is left over from
// coming into this one, and does not count.
func (f *folder) loadDevices() error {
	b, err := f.disk.read(devicesFile, 0o022)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := identity.ParseDeviceList(b)
	if err != nil {
		return fmt.Errorf("%s is damaged (restore it from a copy, or remove it: another device of the account has it, and the one with the account's key makes it again): %w", f.disk.path(devicesFile), err)
	}
	if l.Account() == f.id.AccountID() {
		f.hold(l)
	}
	return nil
}

// keepDevices puts a list on disk, then here.
func (f *folder) keepDevices(l *identity.DeviceList) error {
	text, err := l.MarshalText()
	if err != nil {
		return err
	}
	if err := f.change.replace(devicesFile, text); err != nil {
		return err
	}
	f.hold(l)
	return nil
}

// hold has a list of this account's devices count. Where they came from is noted: a
// device that its account revokes stays out, whatever account it claims then, also if
// it never had a link to this one.
func (f *folder) hold(l *identity.DeviceList) {
	for _, d := range l.Devices() {
		f.trust.Recall(identity.Peer{Device: d.Device, Account: l.Account()})
	}
	f.devices.Store(l)
}

// listDevices signs the account's next list and keeps it. Its number follows the
// clock where that is ahead, so that a lost file does not make lists that nobody
// takes.
func (f *folder) listDevices(devices []identity.ListedDevice) (*identity.DeviceList, error) {
	number := uint64(max(time.Now().UnixMilli(), 1))
	if old := f.devices.Load(); old != nil {
		number = max(number, old.Number()+1)
	}
	l, err := f.id.DeviceList(number, devices...)
	if err != nil {
		return nil, err
	}
	return l, f.keepDevices(l)
}

// Devices returns the account's device list; nil where this device knows of no
// other one.
func (a *Account) Devices() *identity.DeviceList { return a.f.devices.Load() }

// SignDevice makes the device that a handshake has proven one of this account's,
// under a name (see identity.CheckName): it returns the chain for the device's
// Adopt, and the account's new device list, which is on disk here. A device that
// was revoked, or is one of the account's already, gets a new certificate only if
// it is not revoked. It fails on a device that does not hold the account's key,
// and where the account has 32 devices.
func (a *Account) SignDevice(p identity.Peer, name string) (chain [][]byte, list *identity.DeviceList, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Ended() {
		return nil, nil, errClosed
	}
	for _, l := range a.f.trust.Revocations() {
		if l.Issuer() == a.f.id.AccountID() && l.Revokes(p.Device) {
			return nil, nil, fmt.Errorf("account: device %s was revoked, and what is revoked stays so: have it make a new identity (peerchat init in another folder)", p.Device.Short())
		}
	}
	if chain, err = a.f.id.SignDevice(p, name); err != nil {
		return nil, nil, err
	}
	self := a.f.id.Peer()
	devices := []identity.ListedDevice{{Device: self.Device, Name: self.Name}, {Device: p.Device, Name: name}}
	if old := a.f.devices.Load(); old != nil {
		devices = append(devices, slices.DeleteFunc(old.Devices(), func(d identity.ListedDevice) bool {
			return d.Device == p.Device || d.Device == self.Device
		})...)
	}
	if err = a.allowOwn(a.f.id.AccountID()); err != nil {
		return nil, nil, err
	}
	if list, err = a.f.listDevices(devices); err != nil {
		return nil, nil, err
	}
	return chain, list, nil
}

// allowOwn lets the devices of one's own account in, whatever the policy.
func (a *Account) allowOwn(id identity.AccountID) error {
	if a.f.trust.Decision(id) == identity.Allowed {
		return nil
	}
	return a.f.setTrust(id, identity.Allowed)
}

// Adopt makes this device one of the account that has signed chain (SignDevice),
// on disk: its keys and its id stay. The identity it had is kept beside, in
// identity-ACCOUNT.pem. This process goes on as the device it was: Close, and
// Open the account again. list is the account's device list. A crash leaves the
// old or the new account, whole.
func (a *Account) Adopt(chain [][]byte, list []byte) error {
	if a.f.dir == "" {
		return errNoFolder // this process could only go on as the device it was
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Ended() {
		return errClosed
	}
	l, err := identity.ParseDeviceList(list)
	if err != nil {
		return err
	}
	next, err := a.f.id.Adopt(chain)
	switch {
	case err != nil:
		return err
	case l.Account() != next.AccountID() || !l.Has(next.DeviceID()):
		return fmt.Errorf("account: %s does not fit device %s of account %s", l, next.DeviceID().Short(), next.AccountID().Short())
	case next.AccountID() == a.f.id.AccountID() && a.f.id.HoldsAccount():
		return errors.New("account: this device holds the key of that account already")
	}
	if err := a.allowOwn(next.AccountID()); err != nil {
		return err
	}
	return a.f.adopt(next, l)
}

// adopt replaces the identity: with identity.pem, the last, the device is in the
// other account.
func (f *folder) adopt(next *identity.Identity, l *identity.DeviceList) error {
	old, err := f.id.Encode()
	if err != nil {
		return err
	}
	keys, err := next.Encode()
	if err != nil {
		return err
	}
	devices, err := l.MarshalText()
	if err != nil {
		return err
	}
	files := []written{{devicesFile, devices}, {identityFile, keys}}
	kept := keptIdentity(f.id.AccountID())
	if f.id.HoldsAccount() || !f.disk.exists(kept) { // never without its key over one with it
		files = slices.Insert(files, 0, written{kept, old})
	}
	return f.write(files...)
}

// LearnDevices takes a newer device list of this device's own account, on disk
// first, and reports whether it was one. One of another account is an error, and
// so is an older one than is held, which matches ErrOutdatedDevices.
func (a *Account) LearnDevices(list *identity.DeviceList) (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Ended() {
		return false, errClosed
	}
	if list.Account() != a.f.id.AccountID() {
		return false, fmt.Errorf("account: %s is not of this account", list)
	}
	if old := a.f.devices.Load(); old != nil {
		switch {
		case list.Number() == old.Number():
			return false, nil
		case list.Number() < old.Number():
			return false, fmt.Errorf("account: %w: number %d, this one is number %d", ErrOutdatedDevices, old.Number(), list.Number())
		}
	}
	return true, a.f.keepDevices(list)
}

// dropDevices takes devices off the list, if there is one and this device can.
func (a *Account) dropDevices(who []identity.Subject) error {
	old := a.f.devices.Load()
	if old == nil {
		return nil
	}
	stay := slices.DeleteFunc(old.Devices(), func(d identity.ListedDevice) bool { return slices.Contains(who, identity.Subject(d.Device)) })
	if len(stay) == len(old.Devices()) {
		return nil
	}
	_, err := a.f.listDevices(stay)
	return err
}
