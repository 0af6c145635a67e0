package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A device list tells which devices an account has, so that whoever knows one
// finds the others. It proves nothing about them: a device belongs to an account
// because its chain says so. Each list is whole: a later one, with a higher
// number, takes the place of all before. On the wire and on disk, big-endian:
//
//	"PLD1" | key length:uint16 | key, DER SubjectPublicKeyInfo of the account
//	number:uint64 | issued:uint64, Unix milliseconds
//	count:uint16 | count × (id[32] | name length:uint8, 1 to 64 | name), ascending, each once
//	signature length:uint8 | signature of all before it, purpose "devices"
//
// The account's id is the hash of the key, so the list needs no certificate.
const (
	deviceListMagic   = "PLD1"
	deviceListPurpose = "devices"
	deviceListBlock   = "PEERLINK DEVICES" // of PEM
)

// MaxDevices is how many devices a list may have: more than a person carries,
// few enough to try them all.
const MaxDevices = 32

// MaxDeviceListLen is the length of the longest list in bytes.
const MaxDeviceListLen = len(deviceListMagic) + 2 + maxIssuerKey + 8 + 8 + 2 + MaxDevices*(idLen+1+MaxNameLen) + 1 + maxSignatureLen

// ErrDeviceList is matched by the errors of ParseDeviceList.
var ErrDeviceList = errors.New("identity: device list refused")

// ListedDevice is a device as its account lists it.
type ListedDevice struct {
	Device DeviceID
	// Name is what the device calls itself: see CheckName.
	Name string
}

// DeviceList is a list whose signature has been verified. It is immutable and
// may be used concurrently.
type DeviceList struct {
	account AccountID
	number  uint64
	issued  time.Time
	devices []ListedDevice // by id
	raw     []byte
}

// NewDeviceList signs a list with the key of an account. number is above that
// of every earlier list of the same key (at most MaxRevocationNumber); devices
// are all that the account has, at most 32. It blocks only if the key lives in
// hardware that does.
func NewDeviceList(account crypto.Signer, number uint64, devices ...ListedDevice) (*DeviceList, error) {
	b, err := encodeDeviceList(account, number, devices)
	if err != nil {
		return nil, fmt.Errorf("identity: make device list: %w", err)
	}
	return ParseDeviceList(b)
}

func encodeDeviceList(account crypto.Signer, number uint64, devices []ListedDevice) ([]byte, error) {
	if err := checkKeyType(account.Public()); err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKIXPublicKey(account.Public())
	if err != nil {
		return nil, err
	}
	devices = slices.Clone(devices)
	slices.SortFunc(devices, func(a, b ListedDevice) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	devices = slices.CompactFunc(devices, func(a, b ListedDevice) bool { return a.Device == b.Device })
	switch {
	case len(devices) > MaxDevices:
		return nil, fmt.Errorf("%d devices, at most %d fit in: revoke those that are not used any more", len(devices), MaxDevices)
	case number > MaxRevocationNumber:
		return nil, fmt.Errorf("number %d is above %d", number, uint64(MaxRevocationNumber))
	}
	b := binary.BigEndian.AppendUint16([]byte(deviceListMagic), uint16(len(key)))
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMilli()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(devices)))
	for _, d := range devices {
		if err := CheckName(d.Name); err != nil {
			return nil, err
		}
		b = append(append(b, d.Device[:]...), byte(len(d.Name)))
		b = append(b, d.Name...)
	}
	sig, err := sign(account, deviceListPurpose, b)
	if err != nil {
		return nil, err
	}
	return append(append(b, byte(len(sig))), sig...), nil
}

// DeviceList is NewDeviceList with the key of the device's account. A device
// that does not hold it fails.
func (id *Identity) DeviceList(number uint64, devices ...ListedDevice) (*DeviceList, error) {
	if id.account == nil {
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot say which devices the account has")
	}
	return NewDeviceList(id.account, number, devices...)
}

// ParseDeviceList reads what MarshalBinary or MarshalText wrote and verifies its
// signature. Sizes are checked before anything is allocated or verified. The
// error matches ErrDeviceList.
func ParseDeviceList(b []byte) (*DeviceList, error) {
	l, err := parseDeviceList(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDeviceList, err)
	}
	return l, nil
}

func parseDeviceList(b []byte) (*DeviceList, error) {
	if len(b) > 2*MaxDeviceListLen {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), 2*MaxDeviceListLen)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN ")) {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != deviceListBlock || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("want one PEM block “%s”", deviceListBlock)
		}
		b = block.Bytes
	}
	if len(b) > MaxDeviceListLen {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(b), MaxDeviceListLen)
	}
	l := &DeviceList{raw: bytes.Clone(b)}
	r := fieldReader{rest: l.raw}
	if string(r.take(len(deviceListMagic))) != deviceListMagic {
		return nil, fmt.Errorf("it does not begin with %q", deviceListMagic)
	}
	key := r.take(int(r.number(2, maxIssuerKey)))
	l.number = r.number(8, MaxRevocationNumber)
	l.issued = time.UnixMilli(int64(r.number(8, maxIssued)))
	l.readDevices(&r)
	signed := l.raw[:len(l.raw)-len(r.rest)]
	sig := r.take(int(r.number(1, maxSignatureLen)))
	switch {
	case r.err != nil:
		return nil, r.err
	case len(r.rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the signature", len(r.rest))
	}
	pub, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("the account's key: %w", err)
	}
	if err := checkKeyType(pub); err != nil {
		return nil, fmt.Errorf("the account's key: %w", err)
	}
	l.account = AccountID(keyID(key))
	return l, verify(pub, deviceListPurpose, signed, sig)
}

// readDevices reads the devices, which stand in order.
func (l *DeviceList) readDevices(r *fieldReader) {
	n := int(r.number(2, MaxDevices))
	for range n {
		d := ListedDevice{Device: DeviceID(r.take(idLen))}
		d.Name = string(r.take(int(r.number(1, MaxNameLen))))
		if r.err != nil {
			return
		}
		if err := CheckName(d.Name); err != nil {
			r.fail(err)
		}
		if i := len(l.devices); d.Device.IsZero() || i > 0 && bytes.Compare(l.devices[i-1].Device[:], d.Device[:]) >= 0 {
			r.fail(errors.New("the devices are not in order"))
		}
		l.devices = append(l.devices, d)
	}
}

// Account returns the id of the account whose devices are listed, and that has
// signed the list.
func (l *DeviceList) Account() AccountID { return l.account }

// Number returns the list's number; a higher one takes its place.
func (l *DeviceList) Number() uint64 { return l.number }

// Issued returns when the list was made, by its account's clock. Nothing depends
// on it.
func (l *DeviceList) Issued() time.Time { return l.issued }

// Devices returns the devices, by id; the slice is a copy.
func (l *DeviceList) Devices() []ListedDevice { return slices.Clone(l.devices) }

// Has reports whether the list has a device.
func (l *DeviceList) Has(id DeviceID) bool {
	return slices.ContainsFunc(l.devices, func(d ListedDevice) bool { return d.Device == id })
}

// String says whose list it is, for people.
func (l *DeviceList) String() string {
	return fmt.Sprintf("device list %d of account %s (%d devices)", l.number, l.account.Short(), len(l.devices))
}

// MarshalBinary returns the list's bytes, a copy.
func (l *DeviceList) MarshalBinary() ([]byte, error) { return bytes.Clone(l.raw), nil }

// MarshalText returns the list as a PEM block.
func (l *DeviceList) MarshalText() ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: deviceListBlock, Bytes: l.raw}), nil
}
