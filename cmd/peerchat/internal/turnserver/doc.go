// Package turnserver is the STUN and TURN server that a node runs beside the DHT,
// and gives devices credentials for it (package relay).
//
//	s, err := turnserver.Listen(turnserver.Config{Listen: ":3478", Key: nodeKey, Relay: true})
//	...
//	defer s.Close()
//
// One port takes everything: STUN and TURN over UDP and over TCP, and TLS over
// TCP. Within TLS the application protocol (ALPN) says what follows: "stun.turn"
// (RFC 7443) is TURN, "peerlink-pass/1" hands out credentials. The user name is the
// expiry in seconds and the device id; the password is made from it with a secret
// of the process, so the node keeps no list, and a restart makes old ones
// worthless: devices fetch new ones when they need a relay.
//
// # Limits
//
// A relay costs its owner traffic, so it is off unless Config.Relay is set. Devices
// cost nothing, so strangers are counted by their networks, too; members, which
// have proven to be such, have room and a rate of their own (places.go has the
// numbers). What a relay carries is encrypted between the devices; it sees
// addresses and amounts. Relayed addresses are IPv4. Peers at loopback, private,
// link-local, multicast and the machine's own addresses are refused unless
// Config.Private is set: a relay would otherwise be a way into its own network.
package turnserver
