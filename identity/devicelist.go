package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// A device list tells which devices an account has, so that a peer that knows one
// finds the others. It proves nothing about them: a device belongs to an account
// because its chain says so. Items are id[32] | name length:uint8 | name.
var deviceLists = listForm[ListedDevice]{
	magic: "PLD1", purpose: "devices", block: "PEERLINK DEVICES",
	most: MaxDevices, itemLen: idLen + 1 + MaxNameLen,
	full:    "%d devices, at most %d fit in: revoke the ones that are not used",
	compare: func(a, b ListedDevice) int { return bytes.Compare(a.Device[:], b.Device[:]) },
	append: func(b []byte, d ListedDevice) ([]byte, error) {
		b = append(append(b, d.Device[:]...), byte(len(d.Name)))
		return append(b, d.Name...), CheckName(d.Name)
	},
	read: func(from *cryptobyte.String) (d ListedDevice, err error) {
		var name cryptobyte.String
		switch {
		case !from.CopyBytes(d.Device[:]) || !from.ReadUint8LengthPrefixed(&name):
			return d, errCutOff
		case d.Device.IsZero():
			return d, errors.New("a device without an id")
		}
		d.Name = string(name)
		return d, CheckName(d.Name)
	},
}

// MaxDevices is how many devices a list may have: more than a person carries,
// few enough to try them all.
const MaxDevices = 32

// MaxDeviceListLen is the length of the longest list in bytes.
const MaxDeviceListLen = listOverhead + MaxDevices*(idLen+1+MaxNameLen)

// ErrDeviceList is matched by the errors of ParseDeviceList.
var ErrDeviceList = errors.New("identity: device list refused")

// ListedDevice is a device as its account lists it.
type ListedDevice struct {
	Device DeviceID
	// Name is what the device calls itself: see CheckName.
	Name string
}

// DeviceList is a list of an account's devices. Its signature has been verified.
// It is immutable and may be used concurrently.
type DeviceList struct{ signedList[ListedDevice] }

// DeviceList signs a list with the key of the device's account. number is above that
// of every earlier list of the same key (at most MaxRevocationNumber); devices are
// all that the account has, at most 32. It fails on a device that does not hold the
// account's key, and blocks only if the key lives in hardware that does.
func (id *Identity) DeviceList(number uint64, devices ...ListedDevice) (*DeviceList, error) {
	if id.account == nil {
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot say which devices the account has")
	}
	b, err := deviceLists.encode(id.account, number, devices)
	if err != nil {
		return nil, fmt.Errorf("identity: make device list: %w", err)
	}
	return ParseDeviceList(b)
}

// ParseDeviceList reads what MarshalBinary or MarshalText wrote and verifies its
// signature. Sizes are checked before anything is allocated or verified. The
// error matches ErrDeviceList.
func ParseDeviceList(b []byte) (*DeviceList, error) {
	l, err := deviceLists.parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDeviceList, err)
	}
	return &DeviceList{l}, nil
}

// Account returns the id of the account that has these devices and has signed the
// list.
func (l *DeviceList) Account() AccountID { return l.signer }

// Devices returns the devices, by id; the slice is a copy.
func (l *DeviceList) Devices() []ListedDevice { return slices.Clone(l.items) }

// Has reports whether the list has a device.
func (l *DeviceList) Has(id DeviceID) bool {
	return slices.ContainsFunc(l.items, func(d ListedDevice) bool { return d.Device == id })
}

// String names the list for people.
func (l *DeviceList) String() string {
	return fmt.Sprintf("device list %d of account %s (%d devices)", l.number, l.signer.Short(), len(l.items))
}
