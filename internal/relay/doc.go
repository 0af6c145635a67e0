// Package relay gets a device its credentials for the TURN server that a node runs
// beside the DHT.
//
//	pass, err := relay.Fetch(ctx, "node.example:3478", nodePublicKey, me)
//	// pass.Username and pass.Password are good until pass.Expires
//
// The question goes over TLS with an application protocol of its own (Protocol).
// Both ends prove themselves: the node with the key that devices have in its
// multiaddress, the device with its certificate chain. The node answers
//
//	[1, username str, password str, expires ms]
//
// in msgpack, at most 1 KiB, and closes.
package relay
