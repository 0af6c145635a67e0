package tlssock

import (
	"context"
	"errors"
	"testing"
)

// Where another device answers, a further call would end alike; an address where
// nothing answers may come back, and so may the device among several.
//
// case: E17
func TestWrongDeviceIsPermanent(t *testing.T) {
	alice, bob, carol, dave := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol"), newIdentity(t, "dave")
	wrong, closed := listen(t, carol).Addrs()[0].String(), freeAddr(t)
	second := listen(t, dave).Addrs()[0].String()
	for _, c := range []struct {
		addrs []string
		want  bool
	}{{[]string{wrong}, true}, {[]string{wrong, second}, true}, {[]string{wrong, closed}, false}, {[]string{closed, wrong}, false}, {[]string{closed}, false}} {
		d := &Dialer{Config: Config{Identity: alice}}
		if err := d.Learn(bob.DeviceID(), c.addrs...); err != nil {
			t.Fatal(err)
		}
		_, _, err := d.Dial(context.Background(), bob.DeviceID())
		var lasting interface{ Permanent() bool }
		if got := errors.As(err, &lasting) && lasting.Permanent(); got != c.want {
			t.Errorf("%v: permanent is %v: %v", c.addrs, got, err)
		}
	}
}
