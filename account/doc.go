// Package account is a device's home: a folder with its keys, its settings and
// whom it trusts, and the ConnectionManager that works with them.
//
//	acc, err := account.Create(dir, account.Options{Name: "alice's laptop"})
//	...
//	defer acc.Close()
//	chats, err := acc.ConnectionManager().Listen("chat://*") // before devices can call
//	err = acc.Start(ctx)
//	sock, err := acc.ConnectionManager().ConnectDevice(ctx, bob, "file://photo.jpg", peerlink.ConnectOptions{})
//	...
//	err = acc.Shutdown(ctx) // lets channels end
//
// It wires the parts together and has no logic of a carrier: shared
// memory and Unix sockets carry links to devices of the same machine, direct TCP
// and ICE to others, in this order; the DHT carries the signals of ICE.
//
// # The folder
//
//	identity.pem   keys and certificates; mode 0600, nobody else's, or it is refused
//	config.json    settings (Options); an unknown key is an error
//	trust          whom to allow and whom to ban, a line each
//	devices.pem    the account's devices, where there are several; signed with its key
//	lock           held while a process uses the account
//
// Files are replaced whole (written aside, synced, renamed). A damaged file is
// an error that says what to do; a new identity is never made over an old one.
//
// New makes an account without a folder: all settings are Options, and nothing is
// read or written.
package account
