// Package nat tests the whole program through real NATs: hosts, routers and a
// public network in network namespaces of this machine, joined by virtual
// Ethernet, with nftables for the NATs, and peerchat processes on the hosts.
//
//	public network 203.0.113.0/24: three nodes, the first with STUN and TURN
//	  ├─ a host with a public address
//	  └─ a router ─ a host with a private address
//
// The routers masquerade: "cone" keeps the source port, so that a server sees
// the port that everybody else sees; "symmetric" takes a random one for each
// destination. What nobody inside asked for they drop, or reject with a TCP
// reset and ICMP. "Cone, no UDP" is a cone that forwards no UDP, "UDP blocked" a
// symmetric one.
//
// The tests need root, iproute2 and nftables; without them they are skipped,
// loudly. They touch nothing outside the namespaces that they make, whose names
// begin with "pln" and the number of the process.
package nat
