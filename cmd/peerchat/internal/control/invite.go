package control

import (
	"time"

	"peerlink/identity"
)

// What can be asked about invites.
const (
	OpInvite = "invite" // Invite, nothing; then an InviteEvent for each step, of which the last is used or over
	OpAccept = "accept" // AcceptInvite, Met
)

// Invite makes a code for one person, good until the connection ends, somebody
// has used it, or its time is over.
type Invite struct {
	// Name is what the contact is to be called; empty: what it suggests.
	Name string `json:"name,omitempty"`
	// Me is what this device suggests to be called; empty: its own name.
	Me string `json:"me,omitempty"`
	// Within is how long the code is good, in nanoseconds; 0: 10 min, which is the
	// most.
	Within time.Duration `json:"within,omitempty"`
}

// Steps of an invite.
const (
	InviteCode  = "code"  // there is a code, good until Until
	InviteWrong = "wrong" // somebody had wrong words; Left more may
	InviteUsed  = "used"  // Met is whom it made a contact of
	InviteOver  = "over"  // it is good no more; Why
)

// InviteEvent is a step of an invite.
type InviteEvent struct {
	Step  string    `json:"step"`
	Code  string    `json:"code,omitempty"`
	Until time.Time `json:"until,omitzero"`
	Left  int       `json:"left,omitempty"`
	Met   *Met      `json:"met,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// AcceptInvite uses a code.
type AcceptInvite struct {
	Code string `json:"code"`
	// Name and Me are those of Invite.
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
