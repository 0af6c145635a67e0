package control

import (
	"context"
	"time"

	"peerlink/identity"
)

// What a command can ask for. The last ones are for Client's methods about
// channels.
const (
	OpReady    Op[None, None]                  = "ready" // answered once others can reach this device
	OpStatus   Op[None, Status]                = "status"
	OpMetrics  Op[None, string]                = "metrics" // in the text format of Prometheus
	OpContacts Op[ContactChange, Contacts]     = "contacts"
	OpForwards Op[ForwardChange, ForwardRules] = "forwards"
	OpSay      Op[Say, Message]                = "say"     // the message is on disk, and will be delivered
	OpReply    Op[Say, Message]                = "reply"   // as OpSay, but a program says it by itself to all that write
	OpForget   Op[Forget, int64]               = "forget"  // how many messages were deleted
	OpHistory  Op[History, []Message]          = "history" // the oldest first
	OpSeen     Op[Seen, None]                  = "seen"
	OpTalks    Op[None, []Talk]                = "talks" // the latest first
	OpAccept   Op[AcceptInvite, Met]           = "accept"
	OpDevices  Op[None, Devices]               = "devices"
	OpSign     Op[Sign, Signed]                = "device-sign"
	OpRevoke   Op[[]string, Revoked]           = "revoke"       // names of the account's devices, ids, or the first 8 digits or more of one
	OpRevoked  Op[None, []string]              = "revocations"  // as PEM, the lists of the account, to be handed on
	OpImported Op[[]string, None]              = "revoked-list" // as PEM, lists of others, or of the account, are taken

	OpChanges  Feed[None, Changed]     = "changes"
	OpMessages Feed[None, Message]     = "messages"    // each that is new or has another Mark, however slowly they are read
	OpInvite   Feed[Invite, CodeEvent] = "invite"      // for a contact
	OpJoin     Feed[Join, CodeEvent]   = "device-join" // for a device

	OpStop Feed[None, None] = "stop" // one answer; then the daemon ends, and the connection with it

	OpConnect = "connect" // Connect, Channel; then the connection carries the channel
	OpListen  = "listen"  // Listen, ""; then an Offer for each channel of a peer
	OpTake    = "take"    // within 10 s the word of an Offer, Channel; then the connection carries the channel
)

// Op names a question of one answer, by its types.
type Op[In, Out any] string

// None is a question or an answer that says nothing.
type None struct{}

// Ask asks the daemon. It blocks until the answer is there, or ctx ends.
func (o Op[In, Out]) Ask(ctx context.Context, c *Client, in In) (out Out, err error) {
	err = c.call(ctx, string(o), in, &out)
	return out, err
}

// On has do answer the question.
func (o Op[In, Out]) On(h Handlers, do func(ctx context.Context, in In) (Out, error)) {
	h[string(o)] = func(ctx context.Context, c *Call) error {
		var in In
		if err := c.Decode(&in); err != nil {
			return err
		}
		out, err := do(ctx, in)
		if err != nil {
			return err
		}
		return c.Answer(out)
	}
}

// Feed names a question with any number of answers, by its types.
type Feed[In, Item any] string

// Follow asks and calls each with every answer, until the daemon ends (an
// *EndedError), ctx does, or each returns an error, which it returns. ready, if
// not nil, is called once the daemon follows: nothing is missed from then on.
func (f Feed[In, Item]) Follow(ctx context.Context, c *Client, in In, ready func(), each func(Item) error) error {
	w, end, err := c.ask(ctx, string(f), in, nil)
	if err != nil {
		return err
	}
	defer w.conn.Close()
	defer end()
	if ready != nil {
		ready()
	}
	for {
		var v Item
		err := readAnswer(w, &v)
		switch {
		case err == nil:
			err = each(v)
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// On has do answer the question. do calls begin once and tell after it; an error
// of either says that the command has gone, and that ctx is about to end.
func (f Feed[In, Item]) On(h Handlers, do func(ctx context.Context, in In, begin func() error, tell func(Item) error) error) {
	h[string(f)] = func(ctx context.Context, c *Call) error {
		var in In
		if err := c.Decode(&in); err != nil {
			return err
		}
		return do(ctx, in, func() error { return c.Answer(nil) }, func(v Item) error { return c.Answer(v) })
	}
}

// Connect asks for a channel to a device.
type Connect struct {
	Device identity.DeviceID `json:"device"`
	URI    string            `json:"uri"`
	// Addr is a HOST:PORT under which the device takes direct TCP connections;
	// empty: not known.
	Addr string `json:"addr,omitempty"`
	// Any lets any device of the contact be connected to that Device is the first
	// of: the nearest one that takes the channel.
	Any bool `json:"any,omitempty"`
	// OnlyIfConnected never dials.
	OnlyIfConnected bool `json:"only_if_connected,omitempty"`
	// Within is how long reaching the device may be tried, again and again, in
	// nanoseconds; 0: one round.
	Within time.Duration `json:"within,omitempty"`
}

// Listen claims channels of peers. Who may have one is decided before it is
// accepted: the devices of From and of Pipe, or, without either, all.
type Listen struct {
	Pattern string `json:"pattern"` // of URIs
	// From are devices. One that is the first of a contact stands for all of them.
	From []identity.DeviceID `json:"from,omitempty"`
	// Pipe is the name of a pipe: devices may that a rule lets join it.
	Pipe string `json:"pipe,omitempty"`
	// One declines further devices while a channel waits to be taken.
	One bool `json:"one,omitempty"`
}

// Open reports whether all devices may have one.
func (l Listen) Open() bool { return len(l.From) == 0 && l.Pipe == "" }

// Offer is a channel that waits to be taken, or a device that was declined.
type Offer struct {
	Word    string         `json:"word,omitempty"`
	Refused *identity.Peer `json:"refused,omitempty"` // without certificates
}

// Channel describes the channel that a connection carries.
type Channel struct {
	URI  string        `json:"uri"`
	Self identity.Peer `json:"self"` // both without certificates
	Peer identity.Peer `json:"peer"`
}
