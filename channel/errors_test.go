package channel

import (
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestErrorsTellWhoDidWhat(t *testing.T) {
	for code, want := range map[Code]string{CodeClosed: "closed", CodeFlowControl: "flow control violated", CodeCancelled: "cancelled", CodeResource: "out of resources", CodeInternal: "internal error", CodeProtocol: "protocol violated", CodeIdle: "idle", CodeNoListener: "no listener", CodeNotAccepted: "not accepted", 14: "code 14", 300: "code 300"} {
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

// A failed ConnectDevice returns a nil Socket, and in a net.Conn that is not nil
// any more: whatever is called on it says so.
//
// case: E16
func TestANilSocketSaysSo(t *testing.T) {
	s := reflect.ValueOf((*Socket)(nil))
	for m := range s.Type().Methods() {
		args := []reflect.Value{s}
		for i := 1; i < m.Type.NumIn(); i++ {
			args = append(args, reflect.Zero(m.Type.In(i)))
		}
		for _, out := range m.Func.Call(args) {
			if out.Type() == reflect.TypeFor[error]() {
				if err, _ := out.Interface().(error); !errors.Is(err, os.ErrInvalid) {
					t.Errorf("%s: %v", m.Name, err)
				}
			} else if !out.IsZero() {
				t.Errorf("%s: %v", m.Name, out)
			}
		}
	}
}
