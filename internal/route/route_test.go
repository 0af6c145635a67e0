package route

import (
	"encoding/json"
	"net"
	"testing"
)

func TestPathIsWrittenForPeople(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	over := Between("webrtc", "relay", tcp("10.0.0.2:1"), tcp("203.0.113.9:2"))
	over.Over = "udp"
	for want, p := range map[string]Path{
		"":                                   {},
		"tcp 10.0.0.2:5→[fe80::1%eth0]:7000": Between("tcp", "", tcp("[::ffff:10.0.0.2]:5"), &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 7000}),
		"udp srflx 10.0.0.2:1000→203.0.113.14:3000": Between("udp", "srflx", tcp("10.0.0.2:1000"), tcp("203.0.113.14:3000")),
		"webrtc udp relay 10.0.0.2:1→203.0.113.9:2": over,
		"memory pipe→<nil>":                         Between("memory", "", pipe{}, nil),
		"shm (512 KiB)":                             {Engine: "shm", Detail: "(512 KiB)"},
		"unix /run/x.sock (TLS)":                    {Engine: "unix", Detail: "/run/x.sock (TLS)"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		var again Path
		b, err := json.Marshal(p)
		if err != nil || json.Unmarshal(b, &again) != nil || again.String() != want {
			t.Errorf("%q became %s and %q, %v", want, b, again, err)
		}
	}
}

type pipe struct{}

func (pipe) Network() string { return "pipe" }
func (pipe) String() string  { return "pipe" }
