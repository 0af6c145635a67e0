// Package peerlink reaches a device by the hash of its public key, wherever it
// is, and talks to it over as many named channels as you like.
//
//	acc, err := account.Create(dir, account.Options{Name: "alice's laptop"})
//	err = acc.Start(ctx)
//	sock, err := acc.ConnectionManager().ConnectDevice(ctx, bob, "file://photo.jpg", peerlink.ConnectOptions{})
//	_, err = io.Copy(sock, photo) // sock is a net.Conn
//
// On the other side:
//
//	files, err := acc.ConnectionManager().Listen("file://*") // a net.Listener
//	conn, err := files.Accept()
//	peer, _ := peerlink.PeerOf(conn)                         // who it is, proven
//
// A [ConnectionManager] owns the links of one device. A link is one live
// connection to one other device: a carrier's stream, proven to end there, with
// a multiplexed socket on it. The first ConnectDevice to a device races the
// carriers it was given, the cheaper ones with a head start; a further one only
// opens a channel. If two devices connect to each other at once, one link is
// left, and no channel is lost. Links without channels close after a while, and
// those that lead nowhere are replaced when the network changes.
//
// A channel is a [net.Conn], so what works on those works here: http.Serve on a
// listener, http.Client with [ConnectionManager.Transport]. [Messages] cuts a
// channel into messages, and [channel.Socket.SendUnreliable] sends datagrams where
// the carrier has them. Links, Events, Connections and Metrics show what goes
// on; package metrics gives it to Prometheus. The package itself knows no
// carrier: they come in as [Dialer] and [Listener] values; package account
// brings the usual ones.
//
// # Limits
//
// One negotiation per device at a time, whoever asks; Config.Capacity links in
// all and Config.PerDevice with one device; 65 534 channels a link; 256
// undecided channel requests a link; 256 callbacks at once about one device.
// Callbacks run on goroutines of their own, never under a lock and never on a
// reader. Close ends everything within two seconds.
package peerlink
