package control

import (
	"time"

	"peerlink/identity"
)

// What a command can ask about the account's devices.
const (
	OpDevices  = "devices"      // nothing, Devices
	OpJoin     = "device-join"  // Join, Joining; then a Joining for each thing that happens, the last with Account or Error
	OpSign     = "device-sign"  // Sign, Signed
	OpRevoke   = "revoke"       // Revoke, Revoked
	OpRevoked  = "revocations"  // nothing, Revocations: those of the account, to be handed on
	OpImported = "revoked-list" // Revocations, nothing: lists of others, or of the account, are taken
)

// OwnDevice is a device of the account.
type OwnDevice struct {
	Device identity.DeviceID `json:"device"`
	Name   string            `json:"name,omitempty"`
	This   bool              `json:"this,omitempty"`
	// Signs says of this device that it holds the account's key.
	Signs    bool      `json:"signs,omitempty"`
	Online   bool      `json:"connected"`
	LastSeen time.Time `json:"last_seen,omitzero"`
	Revoked  bool      `json:"revoked,omitempty"`
}

// Devices are those of the account, revoked ones last.
type Devices struct {
	Account string      `json:"account"`
	Devices []OwnDevice `json:"devices"`
}

// Join asks for a code by which this device comes into another account.
type Join struct {
	// Name is what the device is to be called; empty: as it is called now.
	Name string `json:"name,omitempty"`
}

// Joining is what happens on the way into another account: first the code, at
// the end the account.
type Joining struct {
	Code    string    `json:"code,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Account string    `json:"account,omitempty"`
	Name    string    `json:"name,omitempty"`
	By      *Device   `json:"by,omitempty"`    // who has signed
	Note    string    `json:"note,omitempty"`  // something went wrong, and it goes on
	Error   string    `json:"error,omitempty"` // the end, without an account
}

// Sign asks to take the device that shows a code into the account.
type Sign struct {
	Code string `json:"code"`
	// Name is what it is to be called; empty: what it calls itself.
	Name string `json:"name,omitempty"`
}

// Signed is a device that has come into the account.
type Signed struct {
	Device identity.DeviceID `json:"device"`
	Name   string            `json:"name"`
	Told   int               `json:"told"` // how many connected devices have the new list
	// Unsure says that the device has not answered that it has the certificate.
	Unsure bool `json:"unsure,omitempty"`
}

// Revoke asks to revoke devices of the account.
type Revoke struct {
	// Who are device ids, names of the account's devices, or the first 8 digits
	// or more of an id.
	Who []string `json:"who"`
}

// Revoked tells what became of it.
type Revoked struct {
	Devices []identity.DeviceID `json:"devices"`
	// Number is that of the revocation list.
	Number uint64 `json:"number"`
	// Connected is how many devices there were links to, Told how many of them
	// have the list.
	Connected int `json:"connected"`
	Told      int `json:"told"`
}

// Revocations are revocation lists as PEM.
type Revocations struct {
	Lists []string `json:"lists"`
}

// ContactDevice is a device of a contact.
type ContactDevice struct {
	Device   identity.DeviceID `json:"device"`
	Name     string            `json:"name,omitempty"` // what it calls itself
	Online   bool              `json:"connected"`
	LastSeen time.Time         `json:"last_seen,omitzero"`
}
