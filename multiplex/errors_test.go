package multiplex

import (
	"fmt"
	"testing"

	"peerlink/channel"
)

// Code 0 is not the protocol's word for it, "closed": it was not told.
func TestADeclineIsPrintedAsItWasTold(t *testing.T) {
	for want, e := range map[string]DeclinedError{
		`channel "x" declined by peer`:                           {},
		`channel "x" declined by peer: "later\x1b"`:              {Reason: "later\x1b"},
		`channel "x" declined by peer (no listener)`:             {Code: channel.CodeNoListener},
		`channel "x" declined by peer (code 300): "not for you"`: {Code: 300, Reason: "not for you"},
	} {
		e.Name = "x"
		for _, format := range []string{"%v", "%+v", "%s"} {
			if got := fmt.Sprintf(format+"|"+format, e, &e); got != want+"|"+want {
				t.Errorf("%s prints %s, want %s twice", format, got, want)
			}
		}
	}
}
