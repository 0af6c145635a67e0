package control

import (
	"time"

	"peerlink/identity"
)

// Status is how a daemon and its account fare.
type Status struct {
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Folder  string    `json:"folder"`
	Self    Device    `json:"self"`
	Policy  string    `json:"policy,omitempty"`
	Listens []string  `json:"tcp,omitempty"` // HOST:PORT for direct TCP
	// Reachable says whether others can find this device; Why not, if not.
	Reachable bool     `json:"reachable"`
	Why       string   `json:"why,omitempty"`
	DHT       *DHT     `json:"dht,omitempty"` // nil where there is none
	Links     []Link   `json:"links"`
	Totals    Totals   `json:"totals"`
	Claims    []string `json:"claims"` // URI patterns that commands listen on
	Problems  []string `json:"problems,omitempty"`
}

// Totals are numbers since the account was started.
type Totals struct {
	Links         int    `json:"links"`
	Connecting    int    `json:"connecting"`
	Opened        uint64 `json:"opened"`
	Closed        uint64 `json:"closed"`
	Failed        uint64 `json:"failed"`
	Refused       uint64 `json:"refused"`
	Channels      int    `json:"channels"`
	Accepted      uint64 `json:"accepted"`
	Declined      uint64 `json:"declined"`
	Retried       uint64 `json:"retried"`
	Stalls        uint64 `json:"stalls"`
	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
}

// DHT is how the account's node fares.
type DHT struct {
	Nodes         int               `json:"nodes"`     // known to the routing table
	Connected     int               `json:"connected"` // peers
	Neighbours    int               `json:"neighbours"`
	Holders       int               `json:"holders"`       // nodes that showed this device's record
	Subscriptions int               `json:"subscriptions"` // nodes that push signals, of Wanted
	Wanted        int               `json:"wanted"`
	ClockAhead    time.Duration     `json:"clock_ahead_ns,omitempty"`
	Dropped       map[string]uint64 `json:"dropped,omitempty"`
	LastSignal    string            `json:"last_signal,omitempty"`
}

// Link is a live link.
type Link struct {
	ID             string        `json:"id"`
	Peer           Device        `json:"peer"`
	Contact        string        `json:"contact,omitempty"` // what this account calls the device
	Carrier        string        `json:"carrier"`
	Way            string        `json:"way,omitempty"` // direct, punched or relay, where ICE was asked
	Path           string        `json:"path,omitempty"`
	WhyRelayed     string        `json:"why_relayed,omitempty"`
	Direction      string        `json:"direction"`
	Local          string        `json:"local,omitempty"`
	Remote         string        `json:"remote,omitempty"`
	Created        time.Time     `json:"created"`
	LastActivity   time.Time     `json:"last_activity"`
	RTT            time.Duration `json:"rtt_ns"` // 0: not known yet
	BytesSent      uint64        `json:"bytes_sent"`
	BytesReceived  uint64        `json:"bytes_received"`
	FramesReceived uint64        `json:"frames_received"`
	Unread         int64         `json:"unread"`
	Stalls         uint64        `json:"stalls"`
	Opened         uint64        `json:"opened"`
	Channels       []Open        `json:"channels"`
}

// Open is an open channel.
type Open struct {
	ID             uint16    `json:"id"`
	URI            string    `json:"uri"`
	Direction      string    `json:"direction"`
	BytesSent      uint64    `json:"bytes_sent"`
	BytesReceived  uint64    `json:"bytes_received"`
	FramesReceived uint64    `json:"frames_received"`
	Stalls         uint64    `json:"stalls"`
	Unread         int       `json:"unread"`
	Created        time.Time `json:"created"`
	LastActivity   time.Time `json:"last_activity"`
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
	// Devices are the contact's that are known, where its account is.
	Devices []ContactDevice `json:"devices,omitempty"`
}

// Contacts are all contacts, by name.
type Contacts struct {
	Contacts []Contact `json:"contacts"`
}

// ContactChange is a change of the contacts: "add", "rename", "remove", "ban",
// "allow" or "forget" (a decision).
type ContactChange struct {
	Do string `json:"do"`
	// Who is a name or a device id.
	Who string `json:"who"`
	// Name is the new name, of add and rename.
	Name string `json:"name,omitempty"`
}
