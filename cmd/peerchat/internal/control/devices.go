package control

import (
	"time"

	"peerlink/identity"
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

// ContactDevice is a device of a contact.
type ContactDevice struct {
	Device   identity.DeviceID `json:"device"`
	Name     string            `json:"name,omitempty"` // what it calls itself
	Online   bool              `json:"connected"`
	LastSeen time.Time         `json:"last_seen,omitzero"`
	Revoked  bool              `json:"revoked,omitempty"` // it is not called, and not let in
}
