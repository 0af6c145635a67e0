package control

import (
	"time"

	"peerlink/identity"
)

// What a command can ask for. Each has a body and an answer, named beside it.
const (
	OpConnect  = "connect"  // Connect, Channel; then the connection carries the channel
	OpListen   = "listen"   // Listen, nothing; then a message Incoming for each channel
	OpTake     = "take"     // Take, Channel; then the connection carries the channel
	OpReady    = "ready"    // nothing, nothing, once others can reach this device
	OpStatus   = "status"   // nothing, Status
	OpMetrics  = "metrics"  // nothing, Metrics
	OpReload   = "reload"   // nothing, Reloaded
	OpStop     = "stop"     // nothing, nothing; then the daemon ends
	OpContacts = "contacts" // ContactChange or nothing, Contacts
	OpForwards = "forwards" // ForwardChange or nothing, ForwardRules
	OpChanges  = "changes"  // nothing, nothing; then a Changed each time
	OpDoctor   = "doctor"   // Examine, daemon.Diagnosis
	OpSay      = "say"      // Say, Message: it is on disk, and will be delivered
	OpHistory  = "history"  // History, Messages
	OpSeen     = "seen"     // Seen, nothing
	OpTalks    = "talks"    // nothing, Talks
	OpMessages = "messages" // nothing, nothing; then a Message for each that is new or whose Mark has changed
)

// Connect asks for a channel to a device.
type Connect struct {
	Device identity.DeviceID `json:"device"`
	URI    string            `json:"uri"`
	// Addr is a HOST:PORT under which the device takes direct TCP connections;
	// empty: not known.
	Addr string `json:"addr,omitempty"`
	// Any lets any device of the contact be connected to that Device is the first
	// of: the nearest one that takes the channel.
	Any bool `json:"any,omitempty"`
	// OnlyIfConnected never dials.
	OnlyIfConnected bool `json:"only_if_connected,omitempty"`
	// Within is how long reaching the device may be tried, again and again, in
	// nanoseconds; 0: one round.
	Within time.Duration `json:"within,omitempty"`
}

// Channel tells whose channel a connection carries.
type Channel struct {
	URI  string `json:"uri"`
	Self Device `json:"self"`
	Peer Device `json:"peer"`
}

// Device is what is known of a device, as in identity.Peer.
type Device struct {
	Device  identity.DeviceID `json:"device"`
	Account string            `json:"account,omitempty"` // 64 hex digits
	CA      string            `json:"ca,omitempty"`
	Name    string            `json:"name,omitempty"` // what it calls itself
}

// DeviceOf describes a peer.
func DeviceOf(p identity.Peer) Device {
	d := Device{Device: p.Device, Name: p.Name}
	if !p.Account.IsZero() {
		d.Account = p.Account.String()
	}
	if !p.CA.IsZero() {
		d.CA = p.CA.String()
	}
	return d
}

// peer returns the description as a Peer, without certificates.
func (d Device) peer() identity.Peer {
	p := identity.Peer{Device: d.Device, Name: d.Name}
	p.Account, _ = identity.ParseAccountID(d.Account) // the zero id where there is none
	p.CA, _ = identity.ParseAccountID(d.CA)
	return p
}

// Listen claims the channels of a URI pattern, as ConnectionManager.Listen does.
type Listen struct {
	Pattern string `json:"pattern"`
}

// Incoming announces a channel. The zero value is the answer to Listen: from
// now on channels come.
type Incoming struct {
	Token string `json:"token,omitempty"`
}

// Take asks for an announced channel, within 10 s.
type Take struct {
	Token string `json:"token"`
}

// Metrics are numbers for Prometheus, in its text format.
type Metrics struct {
	Text string `json:"text"`
}

// Reloaded tells what reading the settings anew has changed.
type Reloaded struct {
	Applied []string `json:"applied,omitempty"` // settings that hold now
	Restart []string `json:"restart,omitempty"` // settings that hold after a restart
}
