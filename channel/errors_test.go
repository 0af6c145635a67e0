package channel

import (
	"io"
	"strings"
	"testing"
)

func TestErrorsTellWhoDidWhat(t *testing.T) {
	for code, want := range map[Code]string{CodeClosed: "closed", CodeFlowControl: "flow control violated", CodeCancelled: "cancelled", CodeResource: "out of resources", CodeInternal: "internal error", CodeProtocol: "protocol violated", CodeIdle: "idle", CodeNoListener: "no listener", 13: "code 13", 300: "code 300"} {
		if got := (&ResetError{Code: code, Remote: true}).Error(); got != "reset by peer ("+want+")" {
			t.Error(got)
		}
		if got := (&ResetError{Code: code}).Error(); got != "reset here ("+want+")" {
			t.Error(got)
		}
	}
	if got := (&OpError{Op: "read", URI: "a\x1b", Err: io.ErrNoProgress}).Error(); strings.Contains(got, "\x1b") {
		t.Error(got)
	}
}
