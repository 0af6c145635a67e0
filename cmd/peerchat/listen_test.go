package main

import (
	"context"
	"strings"
	"testing"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/quota"
)

// A line that is typed goes to every stranger that has written. Their conversations stay
// strangers' all the same: as many as 16 lines could reach would be all that there may be.
//
// case: S7
func TestATypedLineKeepsNoStrangersConversation(t *testing.T) {
	h, said := control.Handlers{}, map[string]int{}
	note := func(op string) func(context.Context, control.Say) (control.Message, error) {
		return func(_ context.Context, in control.Say) (control.Message, error) {
			said[op+" "+in.Text]++ // the command asks for one at a time
			return control.Message{Peer: in.To}, nil
		}
	}
	control.OpSay.On(h, note("say"))
	control.OpReply.On(h, note("reply"))
	l, c := control.Inside()
	s := control.Serve(l, control.Config{Handlers: h})
	heard := quota.NewLRU[identity.DeviceID, struct{}](maxHeard)
	for i := range byte(3) {
		heard.Add(identity.DeviceID{i + 1}, struct{}{})
	}
	host := &host{o: &options{}, s: &session{client: c}, taker: &taker{consent: newConsent(acceptAlways, nil, t.Output())}, heard: heard}
	host.typed(t.Context(), strings.NewReader("hello\n"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said["reply hello"] != 3 {
		t.Errorf("%v, want three replies", said)
	}
}
