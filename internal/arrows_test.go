// Package internal holds small mechanisms that several rooms share; its one
// test keeps the arrows between the rooms.
package internal

import (
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// The compiler keeps the framework from the program's rooms, which stand below
// cmd/peerchat/internal. What follows is what the compiler cannot say.

// arrows are what each room must never reach, directly or through another.
var arrows = map[string]string{
	"peerlink":                       `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|localipc|shm|account|tlssock)`,
	"peerlink/account":               `charm\.land|charmbracelet|spf13|vbauerster|lmittmann|gonum\.org/v1/plot|sqlite|schollz|rsc\.io/qr`,
	"peerlink/identity":              `pion|libp2p|quic-go|msgpack|^peerlink/`,
	"peerlink/channel":               `pion|libp2p|quic-go|msgpack|crypto/tls$|^peerlink/(multiplex|account|dht|ice|webrtc|localipc|shm|identity|tlssock)`,
	"peerlink/multiplex":             `pion|libp2p|quic-go|crypto/tls$|^peerlink/(ice|dht|webrtc|localipc|shm|account|identity|tlssock)`,
	"peerlink/tlssock":               `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice)`,
	"peerlink/ice":                   `libp2p|^peerlink/(multiplex|channel|account|dht)`,
	"peerlink/dht":                   `^peerlink/(multiplex|channel|account|ice|tlssock)`,
	"peerlink/localipc":              `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice|shm|internal/ring)`,
	"peerlink/shm":                   `pion|libp2p|quic-go|winio|^peerlink/(multiplex|channel|account|dht|ice|localipc|tlssock)`,
	"peerlink/webrtc":                `libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice)`,
	"peerlink/webrtc/switchboard":    `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice|webrtc)$`,
	"peerlink/carriertest":           `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|localipc|shm|account|tlssock|peerlinktest)`,
	"peerlink/peerlinktest":          `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|localipc|shm|account)`,
	"peerlink/peerlinktest/loopback": `libp2p|^peerlink/(account|dht)`,
	"peerlink/metrics":               `pion|libp2p|quic-go|^peerlink/(account|dht|ice|localipc|shm|tlssock)`,
	"peerlink/internal/netwatch":     `^peerlink/`,
	"peerlink/internal/portmap":      `^peerlink/`,
	"peerlink/internal/reach":        `^peerlink/`,
	"peerlink/internal/route":        `^peerlink/`,
	"peerlink/internal/ring":         `^peerlink/`,
	"peerlink/internal/proving":      `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|account|multiplex|channel|tlssock|localipc|shm)`,
	"peerlink/internal/relay":        `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|tlssock)`,
	"peerlink/internal/packed":       `pion|libp2p|quic-go|^peerlink/`,
	"peerlink/internal/trace":        `pion|libp2p|quic-go|^peerlink/`,
	"peerlink/internal/calls":        `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|account|multiplex|channel|tlssock)`,
	"peerlink/internal/signalling":   `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|account|multiplex|channel|tlssock)`,
	"peerlink/internal/escape":       `^peerlink/`,
	"peerlink/internal/rawsock":      `^peerlink/`,
	"peerlink/internal/runfolder":    `^peerlink/`,
	"peerlink/internal/quota":        `^peerlink/`,
	"peerlink/internal/stream":       `^peerlink/`,
	"peerlink/internal/life":         `^peerlink/`,
	"peerlink/internal/pause":        `^peerlink/`,
	"peerlink/internal/atomicfile":   `^peerlink/`,
	"peerlink/internal/strictjson":   `^peerlink/`,
	"peerlink/web":                   `^peerlink/`,

	program + "bench":        `sqlite|charm\.land`,
	program + "chat":         `pion|libp2p|quic-go|^peerlink/(account|dht|ice)`,
	program + "chatui":       `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|identity|multiplex|channel)|/internal/(chat|daemon|control)$`,
	program + "codes":        `pion|libp2p|quic-go|^peerlink/(account|dht|ice|tlssock)|/internal/(chat|daemon|control)$`,
	program + "contacts":     `pion|libp2p|quic-go|^peerlink/(account|dht|ice|multiplex|channel)|/internal/(chat|daemon|control)$`,
	program + "control":      `^peerlink/(account|ice)$|/internal/(chat|daemon)$`,
	program + "files/digest": `^peerlink/`,
	program + "files/inbox":  `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|identity|tlssock)`,
	program + "files/parcel": `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|identity|tlssock)`,
	program + "forward":      `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|multiplex|tlssock)|/internal/(chat|daemon|control)$`,
	program + "localuser":    `pion|libp2p|quic-go|^peerlink`,
	program + "journal":      `pion|libp2p|quic-go|^peerlink/`,
	program + "strictfile":   `^peerlink/(account|channel|cmd|dht|ice|identity|localipc|metrics|multiplex|shm|tlssock|webrtc)`,
	program + "turnserver":   `libp2p|quic-go|^peerlink$|^peerlink/(account|channel|dht|ice|multiplex|tlssock|webrtc)`,
	program + "website":      `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|multiplex|channel|tlssock)|/internal/(chat|daemon|control)$`,
}

// program is where the rooms of peerchat stand.
const program = "peerlink/cmd/peerchat/internal/"

// small are rooms that every other one may reach: they reach nothing of ours but
// each other.
var small = regexp.MustCompile(`^peerlink/internal/(quota|life|pause|atomicfile|escape|strictjson)$`)

func TestRoomsKeepTheirArrows(t *testing.T) {
	for room, forbidden := range arrows {
		never := regexp.MustCompile(forbidden)
		for dep := range strings.Lines(list(t, "-deps", own()+strings.TrimPrefix(room, "peerlink"))) {
			if dep = strings.TrimSpace(dep); dep != room && never.MatchString(dep) && !small.MatchString(dep) {
				t.Errorf("%s reaches %s", room, dep)
			}
		}
	}
}

// families are the rooms that may import a third party's packages themselves.
var families = map[string]string{
	`pion/`:                                 `^peerlink/(ice|webrtc|cmd/peerchat/internal/turnserver|test/hostile)$`,
	`libp2p/|multiformats/|ipfs/`:           `^peerlink/dht$`,
	`quic-go/`:                              `^peerlink/ice$`,
	`spf13/|vbauerster/|lmittmann/|dustin/`: `^peerlink/cmd/`,
	`go-winio`:                              `^peerlink/localipc$`,
	`prometheus/`:                           `^peerlink/metrics$`,
	`charm.land/|charmbracelet/`:            `/internal/chatui$`,
	`modernc.org/`:                          `/internal/chat$`,
	`schollz/`:                              `/internal/codes$`,
	// Nothing but the program, and the daemon that it is, stands above account.
	`^peerlink/account$`: `^peerlink/cmd/peerchat(/internal/daemon)?$`,
	// What tests are made with stays out of everything else.
	`^peerlink/(peerlinktest|carriertest)`: `^peerlink/(peerlinktest|carriertest)`,
}

func TestThirdPartiesStayInTheirRooms(t *testing.T) {
	for l := range strings.Lines(list(t, "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, own()+"/...")) {
		f := strings.Fields(l)
		for _, imp := range f[1:] {
			for family, rooms := range families {
				if regexp.MustCompile(family).MatchString(imp) && !regexp.MustCompile(rooms).MatchString(f[0]) {
					t.Errorf("%s imports %s", f[0], imp)
				}
			}
		}
	}
}

// own is the path of this module: peerlink, until tools/rename-module.
var own = sync.OnceValue(func() string {
	out, err := exec.Command("go", "list", "-m").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
})

// list returns what go list says, with this module's path written as peerlink.
func list(t *testing.T, args ...string) string {
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatal(args, err)
	}
	return regexp.MustCompile(`(?m)(^| )`+regexp.QuoteMeta(own())+`(/|\s|$)`).ReplaceAllString(string(out), "${1}peerlink${2}")
}
