package control

import "peerlink/identity"

// ForwardChange is a change of the rules for forwards: "allow" or "remove".
type ForwardChange struct {
	Do string `json:"do"`
	// Who is a name or a device id.
	Who string `json:"who"`
	// May is "dial" or "listen", Addr where: HOST:PORT, HOST:* or the path of a
	// Unix socket; or May is "pipe", Addr a pipe's name or * for all.
	May  string `json:"may"`
	Addr string `json:"addr"`
}

// ForwardRule lets a device have connections made to an address, or taken there,
// or join a pipe.
type ForwardRule struct {
	Device  identity.DeviceID `json:"device"`
	Contact string            `json:"contact,omitempty"` // what this account calls the device
	May     string            `json:"may"`               // dial, listen or pipe
	Addr    string            `json:"addr"`
}

// ForwardRules are all rules, the oldest first.
type ForwardRules struct {
	Rules []ForwardRule `json:"rules"`
}
