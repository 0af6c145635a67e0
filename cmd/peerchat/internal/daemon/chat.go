package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"

	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/control"
)

// HistoryFile is the chat's history, in the account's folder.
const HistoryFile = "history.db"

// maxPage is how many messages one question gets: an answer has 16 MiB at most,
// a text of 64 KiB up to 6 times as much in JSON, but hardly all of them.
const maxPage = 40

// talk is the chat of a daemon.
type talk struct {
	store   *chat.Store
	service *chat.Service
}

// openChat begins to take messages, and to send the waiting ones.
func (d *Daemon) openChat() error {
	st, err := chat.Open(filepath.Join(d.acc.Dir(), HistoryFile))
	if err != nil {
		return err
	}
	if note := st.Note(); note != "" {
		d.log.Error("chat: " + note)
		d.problems = append(d.problems, note)
	}
	s, err := chat.New(chat.Config{Store: st, Net: talkNet{d}, Member: d.member, Logger: d.log})
	if err != nil {
		return errors.Join(err, st.Close())
	}
	d.talk = &talk{st, s}
	d.onClose(func() error { return errors.Join(s.Close(), st.Close()) })
	return nil
}

// handlers add what commands can ask of the chat.
func (t *talk) handlers(h control.Handlers) {
	control.OpSay.On(h, t.say)
	control.OpReply.On(h, t.reply)
	control.OpForget.On(h, t.forget)
	control.OpHistory.On(h, t.history)
	control.OpSeen.On(h, t.seen)
	control.OpTalks.On(h, t.talks)
	control.OpMessages.On(h, t.messages)
}

func message(m chat.Message) control.Message {
	out := control.Message{
		Seq: m.Seq, Peer: m.Peer, ID: hex.EncodeToString(m.ID[:]), Mine: m.Mine, Text: m.Text, At: m.At, Reason: m.Reason,
	}
	if m.Mine {
		out.Mark = m.Mark.String()
	}
	return out
}

func (t *talk) say(_ context.Context, in control.Say) (control.Message, error) {
	m, err := t.service.Send(in.To, in.Text)
	return message(m), err
}

func (t *talk) reply(_ context.Context, in control.Say) (control.Message, error) {
	m, err := t.service.Reply(in.To, in.Text)
	return message(m), err
}

func (t *talk) forget(_ context.Context, in control.Forget) (int64, error) {
	if in.Strangers {
		return t.store.DeleteStrangers()
	}
	return t.store.Delete(in.Peer)
}

func (t *talk) history(_ context.Context, in control.History) (out []control.Message, err error) {
	ms, err := t.store.History(in.Peer, in.Before, min(in.N, maxPage))
	for _, m := range ms {
		out = append(out, message(m))
	}
	return out, err
}

func (t *talk) seen(_ context.Context, in control.Seen) (no control.None, err error) {
	return no, t.store.Seen(in.Peer, in.Seq)
}

func (t *talk) talks(context.Context, control.None) (out []control.Talk, err error) {
	cs, err := t.store.Conversations()
	for _, v := range cs {
		out = append(out, control.Talk(v))
	}
	return out, err
}

// messages tells of messages until the command goes.
func (t *talk) messages(ctx context.Context, _ control.None, begin func() error, tell func(control.Message) error) error {
	return t.service.Follow(ctx, begin, func(m chat.Message) error { return tell(message(m)) })
}
