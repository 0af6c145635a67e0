package peerlink

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"peerlink/channel"
	"peerlink/identity"
)

// What is known of a link goes to another process whole, but for the stream's
// addresses.
func TestAConnectionIsTheSameAfterJSON(t *testing.T) {
	at := time.Now().UTC().Round(0)
	is := Connection{
		ID: LinkID{37}, Peer: identity.Peer{Device: identity.DeviceID{1}, Account: identity.AccountID{2}, Name: "bob"},
		Carrier: "tcp", Path: Path{Detail: "tcp x"}, Direction: Outbound, Created: at, LastActivity: at, RTT: time.Millisecond,
		Unread: 5, Opened: 6,
		Channels: []ChannelInfo{{ID: 9, URI: "chat://x", Direction: Inbound, Stats: channel.Stats{Unread: 1, Created: at, LastActivity: at}}},
	}
	traffic := reflect.ValueOf(&is.Traffic).Elem()
	for i := range traffic.NumField() {
		traffic.Field(i).SetUint(uint64(100 + i))
	}
	is.Channels[0].Add(is.Traffic)
	b, err := json.Marshal(is)
	if err != nil {
		t.Fatal(err)
	}
	var got Connection
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, is) {
		t.Errorf("%s became %+v, %v", b, got, err)
	}
	for _, bad := range []string{`{"id":"0.1"}`, `{"direction":"up"}`, `{"peer":{"device":"x"}}`} {
		if err := json.Unmarshal([]byte(bad), new(Connection)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
