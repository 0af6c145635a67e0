package control

import "peerlink/identity"

// Changed tells what has changed; several changes may be told as one.
type Changed struct {
	Links    bool `json:"links,omitempty"`    // a link has come up or ended
	Contacts bool `json:"contacts,omitempty"` // a contact was added, changed or removed, or what one may forward or join
}

// Examine asks how a device is reached.
type Examine struct {
	Device identity.DeviceID `json:"device"`
	// Addr is a HOST:PORT under which the device takes direct TCP connections;
	// empty: not known.
	Addr string `json:"addr,omitempty"`
}
