// Package dht is a member of a private Kademlia network in which devices are
// found by their id and signal each other: it publishes this device's signed
// record, finds other devices' records, and carries sealed, signed messages
// between devices by pushing them through the nodes nearest to the recipient.
// It never knows what a message means.
//
//	n, err := dht.Start(ctx, dht.Config{Identity: me, Bootstrap: addrs})
//	if err != nil { … }
//	defer n.Close()
//	err = n.Ready(ctx)                       // others can find and call me now
//	err = n.Send(ctx, bob, offer)            // bob is a device id, nothing more
//	from, msg, err := n.Receive(ctx)         // from is proven, msg is fresh
//
// A bootstrap node is dht.Config{Mode: dht.Server, DataDir: dir} and its Addrs. A
// device in mode Auto serves others while these can reach it, and only then.
//
// # What may be relied on
//
// The network may delay or deny, nothing else. Records and signals are signed by
// the device's key and checked by whoever uses them; signals are encrypted for
// their recipient, fresh to 30 s and delivered once; a letter (SendLetter) may
// wait for ten minutes. A node sees for whom a
// signal is, how long it is, and from which address it came, but not from which
// device: a host's libp2p key is made afresh at every start. It still can guess
// that the address that listens for a device is the one that sends for it.
//
// # Limits
//
// A message has at most 16 KiB. What a stranger can make this package hold is
// bounded: see Config and the constants of each file. What is dropped is counted
// by cause (Health). Signals seen are remembered in memory: after a restart one
// that is younger than 30 s could be delivered a second time. An attacker with
// many addresses and keys found by search can surround a device's key and so hide
// it; that is inherent in Kademlia and shows in Health as missing answers only.
package dht
