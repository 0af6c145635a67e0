package ice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink/internal/route"
)

const netnsEnv = "PEERLINK_TEST_NETNS"

// The system asks when it is told to, long before its keepalive would.
// fault: F2
func TestAProbeAsksAtOnce(t *testing.T) {
	t.Parallel()
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
		return s.answered
	}
	waitFor(t, func() bool { return silence() > tcpProbeAfter })
	asked := time.Now()
	probeTCP(conn.(*net.TCPConn))
	waitFor(t, func() bool { return silence() < tcpProbeAfter || time.Since(asked) > 5*time.Second })
	if d := silence(); d > time.Since(asked)+tcpProbeAfter/2 {
		t.Errorf("%v after the probe nothing was heard for %v", time.Since(asked), d)
	}
}

// Of two ends the one that hears nothing ends the connection. The other one, whose
// questions are not answered, hears that it is asked, and then of the end.
// fault: F2
func TestWhoIsAskedKnowsThatThePathLives(t *testing.T) {
	if os.Getenv(netnsEnv) == "" {
		t.Parallel()
		inOwnNetwork(t)
		return
	}
	command(t, "", "ip", "link", "set", "lo", "up")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	deaf, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	heard, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	command(t, fmt.Sprintf("table inet way { chain in { type filter hook input priority 0; tcp sport %d drop; }; }", ln.Addr().(*net.TCPAddr).Port), "nft", "-f", "-")
	ends := [2]*tcpConn{newTCPConn(deaf.(*net.TCPConn), route.Path{}), newTCPConn(heard.(*net.TCPConn), route.Path{})}
	defer ends[1].Close()
	_, err = ends[0].Read(make([]byte, 1))
	if silence := silenceError(0); !errors.As(err, &silence) {
		t.Errorf("the end that hears nothing: %v", err)
	}
	ends[0].Close()
	if _, err := ends[1].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end that hears questions: %v", err)
	}
}

func command(t *testing.T, input, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// inOwnNetwork runs the calling test in a process with a network of its own.
func inOwnNetwork(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: paths that lose packets, for want of %s", tool)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), netnsEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Skipf("NOT TESTED: paths that lose packets, as no network namespace can be made: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
}
