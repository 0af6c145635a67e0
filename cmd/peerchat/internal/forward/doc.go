// Package forward joins connections of this machine to connections of another
// device, each through a channel of its own, as ssh -L and -R do.
//
//	rules, err := forward.OpenRules(path)                // whom to let where: nobody, at first
//	s := forward.NewServer(forward.Config{Rules: rules, Open: open, PeerOf: peerOf})
//	go s.Serve(l)                                        // the channels of forward.Pattern
//
//	c, err := forward.Dial(ctx, channel, target)         // the other side: c is the target's
//	at, err := forward.Ask(ctx, channel, where, token)   // or: listen there, for us
//	err = forward.Relay(ctx, l, forward.RelayConfig{Open: dial})
//
// # The wire
//
// The caller opens a channel and sends its request, the server its answer; each
// is a length (uint16, big-endian, at most 4096) and so many bytes of JSON.
//
//	forward://dial         {"addr":"127.0.0.1:80"}                 {} and then the target's bytes, or {"error":"…"}
//	forward://listen       {"addr":"127.0.0.1:9000","token":"…"}   {"addr":"127.0.0.1:9000"} or {"error":"…"}
//	forward://back/TOKEN   opened by the server for each connection that it took: bytes at once
//
// An address is HOST:PORT or the absolute path of a Unix socket. The token has
// 32 hex digits and is used once. The listening ends with its channel.
//
// The end of a direction is passed on as one; an end that fails cuts the other one
// off, with a reset where there is one, behind all that was sent: a cut never
// looks like an end, except to a Unix socket, which knows no difference. An end
// that takes no more is read on: a server may answer before it has read all, and
// leave.
//
// # Who may
//
// Nobody, until there is a rule: a device and an address, compared letter by
// letter after both were brought into one form. A name is resolved after that:
// a rule for a name trusts whoever answers for the name. A rule for the device by
// which somebody is known (Config.Contact) is for all devices of theirs. Rules for
// pipes stand among them, for whoever serves those.
//
// # Limits
//
// A server joins 128 connections of one device and 512 in all, a Relay 128. Devices
// without a rule have places of their own, in which they are told so: 4 and 128. More
// wait: those that a server takes until it has a place, those of a channel by being
// tried again after the server has reset it with channel.CodeResource. 1024 rules; 10 s for a request, and for reaching a target.
package forward
