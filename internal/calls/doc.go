// Package calls lets devices call each other over a signaller: one device offers, the other answers or refuses, and the two meet.
// What an offer says, and how the devices meet, is the business of a Carrier
// (packages ice and webrtc).
//
//	board := calls.New(calls.Config{Name: "ice", Self: me, ...}, carrier)
//	board.Listen(signaller)
//	conn, peer, err := board.Dial(ctx, device) // runs carrier.Call
//	conn, peer, err = board.Accept(ctx)        // what carrier.Answer has made
//
// # A call
//
// The caller's offer is repeated after 1.5 s, then after twice as long each time,
// while nothing is heard of the device. The first answer or refusal of the called
// device counts. A caller that gives up says so by a refusal. The callee serves
// each offer once: it asks the trust store, then the program's decision, and
// answers again when the offer comes again. A decision that panics is a refusal.
// Candidates may overtake their offer: up to 64 such signals are kept for 10 s.
//
// # Limits
//
// Config bounds the calls at once, in all and of one device. 16 refusals are sent
// at once; a caller beyond them is not told. The last 4 096 offers are remembered
// against repetition. Members of the trust store have all this for themselves, and
// strangers have as much, with half of the places. Nothing that arrives makes the
// reading of signals wait.
//
// # Locks
//
// One mutex guards all state of a Board and of its calls. It is held over no
// callback and no I/O; only the locks of the quota and of the life are taken under
// it. The trust store is asked before.
package calls
