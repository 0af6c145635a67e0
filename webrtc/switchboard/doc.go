// Package switchboard carries small sealed messages between devices over
// WebSockets, so that two of them, browsers among them, can call each other up.
//
//	// somewhere with an address
//	board := switchboard.NewServer(switchboard.ServerConfig{})
//	err := board.ListenAndServe(ctx, ":8443", "cert.pem", "key.pem")
//
//	// on each device: a Signaller for webrtc.Config
//	line, err := switchboard.Dial(ctx, "wss://board.example/", switchboard.Config{Identity: me})
//	t, err := webrtc.New(webrtc.Config{Identity: me, Signaller: line})
//
// # What the server can do
//
// It knows who is connected, who asks for whom, when, and how long the messages
// are; it can delay or drop them. It cannot read them, change them, make them
// up, or deliver one again: a message is sealed to a key that the recipient
// made for this line and signed, and inside it is signed by its sender for that
// one recipient, with its time and a number. wire.go and seal.go have the layout.
//
// # Limits
//
// A server has places for so many lines of an address, as keys are free, and a
// budget for what waits for slow ones: the slowest line ends. Where it has a Trust,
// the members of that have places and a budget of their own; a server without, such
// as that of peerchat node, knows strangers only. Both ends must be connected:
// nothing is kept. A device has one line; a newer
// one takes its place, and the older one ends. The sealing is P-256, which
// every browser has: recorded lines could be read by a quantum computer, which
// would learn addresses, as streams have keys of their own.
package switchboard
