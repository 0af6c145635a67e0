package control

import (
	"time"

	"peerlink/identity"
)

// Invite makes a code for one person, good until the connection ends, the code is
// used, or its time is over.
type Invite struct {
	// Name is what the contact is to be called; empty: what it suggests.
	Name string `json:"name,omitempty"`
	// Me is what this device suggests to be called; empty: its own name.
	Me string `json:"me,omitempty"`
	// Within is how long the code is good, in nanoseconds; 0: 10 min, which is the
	// most.
	Within time.Duration `json:"within,omitempty"`
}

// Join asks for a code by which this device comes into another account.
type Join struct {
	// Name is what the device is to be called; empty: as it is called now.
	Name string `json:"name,omitempty"`
}

// Steps of a code that is shown. A code that is good no more is the error that
// ends them.
const (
	CodeShown = "code"  // there is a code, good until Until
	CodeWrong = "wrong" // a device had wrong words; Left more may
	CodeNote  = "note"  // a device came, and did not get through: Why
	CodeUsed  = "used"  // the last one: Met, or Joined
)

// CodeEvent is a step of a code.
type CodeEvent struct {
	Step   string    `json:"step"`
	Code   string    `json:"code,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Left   int       `json:"left,omitempty"`
	Why    string    `json:"why,omitempty"`
	Met    *Met      `json:"met,omitempty"`
	Joined *Joined   `json:"joined,omitempty"`
}

// AcceptInvite uses a code.
type AcceptInvite struct {
	Code string `json:"code"`
	// Name and Me are as in Invite.
	Name string `json:"name,omitempty"`
	Me   string `json:"me,omitempty"`
}

// Met is a contact that a code has made: its device was proven.
type Met struct {
	Name   string            `json:"name"`
	Device identity.DeviceID `json:"device"`
	// Known says that the device was a contact before, under this name.
	Known bool `json:"known,omitempty"`
	// Unsure says that the other device has not said that it keeps this one.
	Unsure bool `json:"unsure,omitempty"`
}

// Joined is the account that this device has come into.
type Joined struct {
	Account string        `json:"account"`
	Name    string        `json:"name"`
	By      identity.Peer `json:"by"` // the device that has signed
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
