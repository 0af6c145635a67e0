// Package chat keeps conversations: their history on disk, what waits to be
// sent, and the exchange with other devices. Messages to a device that is away
// are kept and sent when it can be reached.
//
//	store, err := chat.Open(path)
//	s := chat.New(chat.Config{Store: store, Net: manager})
//	defer s.Close()
//	m, err := s.Send(bob, "hello")        // on disk; not yet delivered
//	s.Follow(ctx, begin, tell)            // new messages, and what became of others
//
// # Exactly once
//
// A message has a random id of 16 bytes. It is sent until its receiver has said
// that its disk has it, so it may travel more than once; the receiver stores an
// id of a sender once and says yes again. So it is seen once, whoever dies when.
//
// # The exchange
//
// A device that has something to send opens a channel "message://1" and sends
// messages (peerlink.Messages) of JSON, the oldest first:
//
//	{"id":"32 hex digits","at":milliseconds since 1970,"text":"…"}
//
// The answer to each is {"ack":"id"}, once it is on disk, or
// {"no":"id","why":"…"}: then it is not sent again. A receiver without room for it
// closes the channel: then it is sent again later, as all without an answer is.
//
// # Limits
//
// A text has 64 KiB at most and is UTF-8; it is stored as it came, and who shows
// it escapes it. 1 000 messages to one device may wait. What a conversation has, each
// message counted as 256 bytes more than its text, is bounded by whose it is:
//
//	                            members                strangers
//	one conversation            50 000, 64 MiB         1 000, 4 MiB
//	all                         4 096, 1 GiB           1 024, 64 MiB
//	channels, of one device     256, 16                128, 2
//	stored in a second          as the disk can        32, the others wait
//
// Members are those for whom Config.Member keeps room, and devices to which this
// device's user has written. Where a conversation, or all of a kind, have too much the
// oldest messages go, those of the longest conversation first; too many strangers cost
// the one that was silent for longest its own. A member's first message is put off
// where there are too many conversations, until one is deleted. A damaged database is
// moved aside, and said so; one of a newer release is refused.
package chat
