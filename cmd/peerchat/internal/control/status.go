package control

import (
	"time"

	"peerlink"
	"peerlink/dht"
	"peerlink/identity"
)

// Status is how a daemon and its account fare.
type Status struct {
	PID     int           `json:"pid"`
	Since   time.Time     `json:"since"`
	Folder  string        `json:"folder"`
	Self    identity.Peer `json:"self"`
	Listens []string      `json:"tcp,omitempty"` // HOST:PORT for direct TCP
	// Reachable says whether others can find this device; Why not, if not.
	Reachable bool             `json:"reachable"`
	Why       string           `json:"why,omitempty"`
	DHT       *dht.Health      `json:"dht,omitempty"` // nil where there is none
	Links     []Link           `json:"links"`
	Totals    peerlink.Metrics `json:"totals"` // since the account was started
	Claims    []string         `json:"claims"` // URI patterns that commands listen on
	Problems  []string         `json:"problems,omitempty"`
}

// Link is a live link.
type Link struct {
	peerlink.Connection
	Contact    string `json:"contact,omitempty"` // what this account calls the device
	Way        string `json:"way,omitempty"`     // direct, punched or relay, where ICE was asked
	WhyRelayed string `json:"why_relayed,omitempty"`
	Local      string `json:"local,omitempty"` // the stream's addresses
	Remote     string `json:"remote,omitempty"`
}

// Contact is somebody that this account has a name for.
type Contact struct {
	Name     string            `json:"name"`
	Device   identity.DeviceID `json:"device"`
	Trust    string            `json:"trust"` // undecided, allowed or banned
	Added    time.Time         `json:"added"`
	Online   bool              `json:"connected"` // there is a link now
	LastSeen time.Time         `json:"last_seen,omitzero"`
	// Account is the contact's, where it is known: 64 hex digits.
	Account string `json:"account,omitempty"`
	// Moved is the account under which the contact's device came last, if that is not
	// the contact's: what is granted to the contact is not for it there.
	Moved string `json:"moved,omitempty"`
	// MovedWith are other devices of that account to which there are links.
	MovedWith []ContactDevice `json:"moved_with,omitempty"`
	// Devices are the contact's that are known, where its account is.
	Devices []ContactDevice `json:"devices,omitempty"`
}

// Contacts are all contacts, by name.
type Contacts struct {
	Contacts []Contact `json:"contacts"`
	// Strangers is what becomes of devices about which nothing was decided: "allow" or
	// "refuse".
	Strangers string `json:"strangers"`
}

// ContactChange is a change of the contacts: "add", "rename", "remove", "ban",
// "allow" or "forget" (a decision), "moved" (into another account), or "strangers" (the
// policy: Who is "allow" or "refuse").
type ContactChange struct {
	Do string `json:"do"`
	// Who is a name or a device id.
	Who string `json:"who"`
	// Name is the new name, of add and rename.
	Name string `json:"name,omitempty"`
	// Account is the one that the user has confirmed, of moved: 64 hex digits; empty:
	// whichever it is.
	Account string `json:"account,omitempty"`
}
