// Package relay is the STUN and TURN server that a node runs beside the DHT,
// and how a device gets credentials for it.
//
//	s, err := relay.Listen(relay.Config{Listen: ":3478", Key: nodeKey, Relay: true})
//	...
//	defer s.Close()
//
//	pass, err := relay.Fetch(ctx, "node.example:3478", nodePublicKey, me)
//	// pass.Username and pass.Password are good until pass.Expires
//
// One port takes everything: STUN and TURN over UDP and over TCP, and TLS over
// TCP. Within TLS the application protocol (ALPN) says what follows: "stun.turn"
// (RFC 7443) is TURN, "peerlink-pass/1" hands out credentials. For those both
// ends prove themselves: the node with the key that devices have in its
// multiaddress, the device with its certificate chain. The node answers
//
//	[1, username str, password str, expires ms]
//
// in msgpack, at most 1 KiB, and closes; or, where there are no credentials,
//
//	[0, reason]
//
// with the reasons 1: there is no room for the device now, 2: the node relays for
// its members only, 3: the device or its network has asked too often. A node that
// does not relay closes without an answer. The user name is the expiry in seconds
// and the device id; the password is made from it with a secret of the process,
// so the node keeps no list, and a restart makes old ones worthless: devices
// fetch new ones when they need a relay.
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
package relay
