// Package invite lets two devices that know nothing of each other prove that
// their users hold the same short code, such as 7-amber-walrus, and so that
// each is the device the other user means.
//
// The number says where to look: under it the inviting device is found in the
// network (Claim, Find). The words are the secret. They never travel: the two
// devices run a password-authenticated key exchange over one channel socket
// (Prove), which tells whoever does not know them nothing but that a guess was
// wrong. A Guard counts the guesses and lets one device through.
//
//	// who invites
//	number, until, err := invite.Claim(ctx, account)
//	code := invite.Code{Number: number, Words: invite.NewWords()}
//	guard := invite.NewGuard()
//	go invite.Hold(ctx, account, number, until)
//	conn, err := listener.Accept()         // of a URI of this purpose, while the invite is open
//	key, err := invite.Prove(ctx, conn, invite.Terms{Role: invite.Inviter, Purpose: "contact",
//		Code: code, Me: me, Peer: peer, Guard: guard})
//
//	// who was told the code
//	code, err := invite.Parse(text)
//	peer, err := account.FindInvite(ctx, code.Number)
//	conn, err := manager.ConnectDevice(ctx, peer, uri, peerlink.ConnectOptions{})
//	key, err := invite.Prove(ctx, conn, invite.Terms{Role: invite.Joiner, Purpose: "contact",
//		Code: code, Me: me, Peer: peer})
//
// Me and Peer are the devices that the link's handshake has proven. They are
// part of what is proven here, so nobody can sit between two links and pass the
// messages on.
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
// inviter has one guess each time the code is typed. A proof takes at most 15 s.
package invite
