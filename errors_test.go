package peerlink

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// farAway is the error of a carrier that reaches other devices only.
type farAway struct{}

func (farAway) Error() string   { return "not on this machine" }
func (farAway) Elsewhere() bool { return true }

func TestConnectErrorNamesCarriersThatWereAWay(t *testing.T) {
	local := Attempt{Carrier: "shm", Err: fmt.Errorf("shm to 0a: %w", farAway{})}
	tcp := Attempt{Carrier: "tcp", Err: errors.New("connection refused")}
	trying := Attempt{Carrier: "ice", Took: time.Second}
	unknown := Attempt{Carrier: "tcp", Err: errors.New("tcp to 00000000: no TCP address of the device is known")}
	silent := Attempt{Carrier: "ice", Err: errors.New("ice: no path to the device 00000000: no answer through the DHT in 10.0 s (3 nodes asked, none took the call)")}
	refused := Attempt{Carrier: "ice", Err: errors.New(`ice: device 00000000 refused the connection: "00000000: all is well"`)}
	for _, c := range []struct {
		attempts []Attempt
		want     string
	}{
		{[]Attempt{local, tcp}, "could not reach device 00000000: tcp: connection refused"},
		{[]Attempt{local, trying}, "could not reach device 00000000: ice: still trying after 1s"},
		{[]Attempt{local, local}, "could not reach device 00000000: shm: shm to 0a: not on this machine; shm: shm to 0a: not on this machine"},
		{[]Attempt{unknown, silent}, "could not reach device 00000000: tcp: no TCP address of the device is known; ice: no answer through the DHT in 10.0 s (3 nodes asked, none took the call)"},
		{[]Attempt{refused}, `could not reach device 00000000: ice: device 00000000 refused the connection: "00000000: all is well"`},
		{nil, "could not reach device 00000000: no carrier to try"},
	} {
		err := &ConnectError{Attempts: c.attempts}
		if got := err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		if len(c.attempts) > 0 && c.attempts[0].Carrier == "shm" && !errors.Is(err, farAway{}) {
			t.Error("what is not named is no longer matched")
		}
	}
}
