// Package relay is how a device gets credentials for the relay of a node
// (cmd/peerchat/internal/turnserver).
//
//	pass, err := relay.Fetch(ctx, "node.example:3478", nodePublicKey, me)
//	// pass.Username and pass.Password are good until pass.Expires
//
// Both ends prove themselves within TLS 1.3 over TCP, whose application protocol
// (ALPN) is "peerlink-pass/1": the node with the key that devices have in its
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
// does not relay closes without an answer.
package relay
