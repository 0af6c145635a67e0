package ice

import (
	"net"
	"testing"
	"time"
)

// The system asks when it is told to, long before its keepalive would.
// fault: F2
func TestAProbeAsksAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Hour, Interval: time.Hour, Count: 9}}
	conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	silence := func() time.Duration {
		s, ok := stateOf(conn.(*net.TCPConn))
		if !ok {
			t.Fatal("the system does not know the connection")
		}
		return s.silence
	}
	waitFor(t, func() bool { return silence() > tcpProbeAfter })
	asked := time.Now()
	probeTCP(conn.(*net.TCPConn))
	waitFor(t, func() bool { return silence() < tcpProbeAfter || time.Since(asked) > 5*time.Second })
	if d := silence(); d > time.Since(asked)+tcpProbeAfter/2 {
		t.Errorf("%v after the probe nothing was heard for %v", time.Since(asked), d)
	}
}
