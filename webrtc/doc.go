// Package webrtc is the carrier that a browser can speak as well: an ordered,
// reliable stream over a WebRTC data channel (pion/webrtc), found by ICE and
// called up over any Signaller.
//
//	t, err := webrtc.New(webrtc.Config{Identity: me, Trust: trust, Signaller: board})
//	...
//	conn, peer, err := t.Dial(ctx, bob)   // one side
//	conn, peer, err := t.Accept(ctx)      // the other
//
// Signals go over a Signaller, such as the dht's Node or the switchboard's
// Client, or over whatever the application has: Config.OnLocalDescription and
// OnLocalCandidate give them out, SetRemoteDescription and AddRemoteCandidate
// take them in. A connection is the same either way, and as safe.
//
// # The channel
//
// The caller opens one reliable, ordered data channel under an agreed label.
// Its first messages prove who is at each end (proof.go has the layout): both
// sides sign the fingerprints of the two DTLS certificates, both ids and both
// nonces with their device key, so that a signaller which puts its own
// certificates into the signals gets a channel that nobody talks over. After
// that binary messages, of at most 64 KiB, are the stream's bytes, and the text
// message "end" says that its sender sends no more. Other text messages are
// passed over.
//
// # Two calls at once
//
// While a device waits for the answer to its own offer, an offer of the called
// device decides by id: the smaller one's stands, the other side drops its own
// and answers. Its Dial goes on, with a new offer, once that call is through.
//
// # Limits
//
// Of the candidates of an undecided caller (identity.Trust.Member) a few are tried,
// with a few checks each, as they may be addresses of a third party; private ones on
// this machine's networks only. Candidates are IP addresses: the names that browsers put in place of them
// (mDNS) are passed over, and the browser finds this side instead. A stream's
// peer is whoever proved itself, never who a signal claims to be from. SCTP in
// user space is slower than TCP or QUIC: prefer them where both ends have them.
// It needs room in UDP sockets; where the system allows them less than 4 MiB
// (Linux: net.core.rmem_max), bursts are lost and streams are slower.
package webrtc
