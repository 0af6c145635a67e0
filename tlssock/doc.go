// Package tlssock runs mutual TLS 1.3 over any net.Conn and proves both ends
// by device id. It also holds the simplest carrier: direct TCP, dialled and
// listened for at known addresses.
//
//	cfg := tlssock.Config{Identity: me, Trust: trust}
//	conn, err := cfg.Client(ctx, carrier, bobsID)  // the caller's end
//	conn, err := cfg.Server(ctx, carrier)          // the callee's end
//	fmt.Println(conn.Peer())                       // the device, proven
//
//	l, err := tlssock.Listen(ctx, cfg, "192.0.2.7:4100")
//	d := &tlssock.Dialer{Config: cfg}
//	conn, peer, err := d.DialAddr(ctx, "192.0.2.7:4100", bobsID)
//
// # What is proven
//
// TLS 1.3 only, ALPN "peerlink/1" on both sides, a certificate from both
// sides, no session tickets, so each connection is a full handshake in which
// the trust store is asked; no renegotiation, no early data, no server name,
// so an observer learns no id. The first certificate's key must be the device
// that was dialled; that is compared before anything else of the certificate
// is believed. The chain above it goes through identity.VerifyChain, never
// through general path building. A handshake may bring 16 KiB at most.
//
// A device may connect to itself: TLS 1.3 keeps the roles apart (client and
// server sign different statements, so neither can be reflected), and whether
// a link to oneself makes sense is for the program to decide.
//
// # Limits
//
// In TLS 1.3 a client is done before the server has judged it: Client and Dial
// succeed, and so may the first writes, although the server then refuses. The
// refusal arrives at the first Read and matches ErrRefused. The caller must
// wait for a first byte from the other end before calling the link up.
//
// As in crypto/tls, a write that its deadline has cut off breaks the
// connection for writing: half a record cannot be taken back.
package tlssock
