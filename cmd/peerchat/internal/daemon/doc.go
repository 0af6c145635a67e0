// Package daemon is the process that holds an account, as commands see it: it
// answers on the account's control socket (package control), opens and takes
// channels for commands, and keeps what outlives them.
//
//	acc, err := account.Open(dir, account.Options{})
//	err = acc.Start(ctx)
//	d, err := daemon.New(daemon.Config{Account: acc})
//	l, err := control.Bind(acc.Dir())      // whoever holds the account's lock
//	d.Serve(l)
//	<-d.Stopped()                          // a command asked for it
//	err = d.Close()                        // then acc.Close
//
// # Channels
//
// A channel's bytes go from the channel into one buffer and from there to the
// command's socket, and back; ends and resets keep their meaning. A command
// that is killed resets its channel, whoever is at the other end.
//
// # Devices
//
// A contact is all devices of an account. Which there are, and which were revoked,
// devices tell each other in signed lists when a link comes up and when one has
// changed; a call of a contact goes to the nearest device that takes it. Messages
// of the chat go to the first one that takes them, and stand in the conversation of
// the device that the contact was added with.
//
// # Limits
//
// Commands have 128 channels of one member that they listen for (identity.Trust,
// contacts, and devices that a command names), 256 of all of these, and of strangers 32
// and 128. A channel waits for 10 s to be taken. The stories of the last 256 devices
// that were called are kept.
package daemon
