// Package ice reaches a device wherever it is: two devices tell each other
// through a signaller at which addresses they may be found, try them all at
// once, and get an ordered, reliable stream that is proven to end at the right
// device.
//
//	tr, err := ice.New(ice.Config{Identity: me, Trust: trust, Signaller: signaller})
//	...
//	defer tr.Close()
//	tr.Decide(func(ctx context.Context, peer identity.Peer) error {
//		return askTheUser(ctx, peer) // an error refuses; its text is told
//	})
//	go func() {
//		conn, peer, err := tr.Accept(ctx) // streams that others have made
//		...
//	}()
//	conn, peer, err := tr.Dial(ctx, device) // a stream of ours
//	if errors.Is(err, ice.ErrNoPath) {
//		fmt.Println(err) // tells every attempt and why it failed
//	}
//
// # How a stream comes about
//
// The caller sends an offer, the callee an answer, or a refusal. Both carry the
// candidates of two engines, which run side by side:
//
//   - tcp: an ICE-TCP of its own. One port listens and dials; each connection is
//     checked with a key from the offer; the caller nominates one, and TLS 1.3
//     starts on it.
//   - udp: pion/ice finds a pair of addresses, and QUIC runs between them on the
//     same socket, or through an address at a TURN server.
//
// Besides those of its interfaces a device offers the addresses that STUN
// servers see it at, ports that its router maps, and one at a relay. The offer
// leaves with what is known; the rest follows in further signals.
//
// The callee tries the caller's candidates as soon as it has agreed, so that a
// stream may exist before its answer arrives. The caller (the controlling
// side) settles which path is taken, in this order: TCP to an interface, UDP, TCP
// through NATs, one relay, two. A worse one waits for a better one that may still
// come, 50 ms on a local network, and a relay for about a round trip
// after the answer. A path that fails is replaced by the next. Whatever path it is,
// both ends have proven the keys of their device ids in a TLS 1.3 handshake, and
// the device is the one that was dialled or that made the offer.
//
// # Limits
//
// Relayed addresses are IPv4. At most 8 servers are asked. A TCP stream is TLS of
// the standard library: a Write that runs into its deadline ends the stream for
// writing. Streams over UDP end with their
// Transport. A path that is lost is noticed within three seconds, over TCP on
// Linux only; elsewhere, and where a program hangs while its system answers,
// whoever uses the stream has to ask for signs of life. Links between the same
// two devices are not merged here: each Dial makes a stream.
package ice
