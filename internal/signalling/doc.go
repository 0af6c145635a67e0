// Package signalling has what carriers share between themselves and the ways over
// which devices send each other small messages: one way for several carriers, and
// several ways for one carrier.
//
//	s := signalling.Split(node, trust, nil, signalling.Kinds{To: 15}, signalling.Kinds{From: 16, To: 19})
//	defer s.Close()                        // before node
//	ice.Config{Signaller: s.Branch(0)}     // kinds 0 to 15 of the DHT's messages
//	j := signalling.Join(trust, nil, board, s.Branch(1))
//	defer j.Close()
//	webrtc.Config{Signaller: j}            // over the switchboard, or else the DHT
//
// Messages are msgpack maps in which the key "k" is the kind, as in
// docs/protocol.md. Nothing here believes anything: the sender of a message is
// the one that its line has proven.
package signalling
