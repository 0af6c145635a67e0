// Package codes lets two devices that know nothing of each other prove that
// their users hold the same short code, such as 7-amber-walrus, and so that
// each is the device the other user means.
//
// The number says where to look: under it the device that shows the code, the
// inviter, is found in the network (Claim). The words are the secret. They never
// travel: the two devices run a password-authenticated key exchange over one
// channel socket (Prove), which tells a device that does not know them nothing but
// that a guess was wrong. A Guard counts the guesses and lets one device through.
//
//	network := &codes.Network{Manager: manager, Rendezvous: account, Me: me, Listen: manager.Listen, Logger: log}
//
//	// the device that shows a code, to make a contact for example
//	peer, err := network.Show(ctx, codes.Showing{
//		Purpose: codes.Contact,
//		Code:    func(c codes.Code, until time.Time) { fmt.Println(c) },
//		Serve:   func(ctx context.Context, conn net.Conn, peer identity.Peer) error { … },
//		Failed:  func(err error, left int) { … },
//	})
//
//	// the device on which it is typed: the joiner
//	code, err := codes.Parse(text)
//	err = network.Use(ctx, code, codes.Contact, func(ctx context.Context, conn *channel.Socket, peer identity.Peer) error { … })
//
// The two devices, as the link's handshake has proven them, are part of what is
// proven here, so no device can sit between two links and pass the messages on.
//
// # The wire
//
// Frames are length:uint16 | kind:uint8 | body[length-1], at most 128 bytes.
//
//	joiner   1 share    version(1) = 1 | X(65)
//	inviter  1 share    version(1) = 1 | Y(65)
//	joiner   2 confirm  MAC(32)
//	inviter  2 confirm  MAC(32)
//	either   3 no       why(1): 1 wrong words, 2 the code is spent, 3 not understood,
//	                    4 not kept
//
// and where the two introduce themselves then (Introduce):
//
//	joiner   4 name     UTF-8, 1 to 64 bytes
//	inviter  4 name     the same, once the joiner is kept
//	joiner   5 kept     nothing, once the inviter is kept
//
// docs/protocol.md, "Invite codes", has what is computed.
//
// # Limits
//
// A code has 2 643 876 pairs of words. A guard takes three wrong guesses; so
// somebody who guesses gets in once in 880 000 codes. Whoever pretends to be the
// inviter has one guess each time the code is typed. A proof takes at most 15 s,
// and what the devices do after it 30 s. 16 proofs of one code run at once, 4 of
// one device; one more ends the oldest of the device that has most.
package codes
