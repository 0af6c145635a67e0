// Package internal holds small mechanisms that several rooms share; its one
// test keeps the arrows between the rooms.
package internal

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// arrows are what each room must never reach, directly or through another.
var arrows = map[string]string{
	"peerlink":                          `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|localipc|shm|account|tlssock|cmd)`,
	"peerlink/identity":                 `pion|libp2p|quic-go|msgpack|^peerlink/`,
	"peerlink/channel":                  `pion|libp2p|quic-go|msgpack|crypto/tls$|^peerlink/`,
	"peerlink/multiplex":                `pion|libp2p|quic-go|crypto/tls$|^peerlink/(ice|dht|webrtc|localipc|shm|account|identity|tlssock)`,
	"peerlink/tlssock":                  `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice)`,
	"peerlink/ice":                      `libp2p|^peerlink/(multiplex|channel|account|dht)`,
	"peerlink/dht":                      `^peerlink/(multiplex|channel|account|ice|tlssock)`,
	"peerlink/localipc":                 `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice|shm|internal/ring)`,
	"peerlink/shm":                      `pion|libp2p|quic-go|winio|^peerlink/(multiplex|channel|account|dht|ice|localipc|tlssock)`,
	"peerlink/webrtc":                   `libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice)`,
	"peerlink/webrtc/switchboard":       `pion|libp2p|quic-go|^peerlink/(multiplex|channel|account|dht|ice|webrtc)$`,
	"peerlink/metrics":                  `pion|libp2p|quic-go|^peerlink/(account|dht|ice|localipc|shm|tlssock)`,
	"peerlink/internal/journal":         `^peerlink/`,
	"peerlink/internal/netwatch":        `^peerlink/`,
	"peerlink/internal/portmap":         `^peerlink/`,
	"peerlink/internal/reach":           `^peerlink/`,
	"peerlink/internal/ring":            `^peerlink/`,
	"peerlink/internal/relay":           `libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|tlssock)`,
	"peerlink/internal/packed":          `pion|libp2p|quic-go|^peerlink/`,
	"peerlink/internal/trace":           `pion|libp2p|quic-go|^peerlink/`,
	"peerlink/internal/transfer":        `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|identity|tlssock)`,
	"peerlink/internal/transfer/digest": `^peerlink/`,
	"peerlink/internal/transfer/inbox":  `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|identity|tlssock)`,
	"peerlink/internal/transfer/parcel": `pion|libp2p|quic-go|^peerlink/(ice|dht|account|multiplex|channel|identity|tlssock)`,
	"peerlink/internal/strictfile":      `^peerlink/`,
	"peerlink/internal/signalling":      `pion|libp2p|quic-go|^peerlink/(ice|dht|webrtc|account|multiplex|channel|tlssock)`,
	"peerlink/internal/escape":          `^peerlink/`,
	"peerlink/internal/invite":          `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|multiplex|channel|tlssock|internal/(chat|daemon|control)$)`,
	"peerlink/internal/chatui":          `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|identity|multiplex|channel|internal/(chat|daemon|control)$)`,
	"peerlink/internal/contacts":        `pion|libp2p|quic-go|^peerlink/(account|dht|ice|multiplex|channel|internal/(chat|daemon|control)$)`,
	"peerlink/internal/control":         `pion|libp2p|quic-go|^peerlink/(account|dht|ice|internal/daemon)`,
	"peerlink/internal/chat":            `pion|libp2p|quic-go|^peerlink/(account|dht|ice|internal/(daemon|control)$)`,
	"peerlink/internal/forward":         `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|multiplex|tlssock|internal/(chat|daemon|control)$)`,
	"peerlink/internal/website":         `pion|libp2p|quic-go|^peerlink$|^peerlink/(account|dht|ice|multiplex|channel|tlssock|internal/(chat|daemon|control)$)`,
	"peerlink/web":                      `^peerlink/`,
}

func TestRoomsKeepTheirArrows(t *testing.T) {
	for pkg, forbidden := range arrows {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Errorf("%s: %v", pkg, err)
			continue
		}
		never := regexp.MustCompile(forbidden)
		for dep := range strings.Lines(string(out)) {
			if dep = strings.TrimSpace(dep); dep != pkg && never.MatchString(dep) {
				t.Errorf("%s reaches %s", pkg, dep)
			}
		}
	}
}

// families are the rooms that may import a third party's packages themselves.
var families = map[string]string{
	`pion/`:                                 `^peerlink/(ice|webrtc|internal/relay)$`,
	`libp2p/|multiformats/|ipfs/`:           `^peerlink/dht$`,
	`quic-go/`:                              `^peerlink/ice$`,
	`spf13/|vbauerster/|lmittmann/|dustin/`: `^peerlink/cmd/`,
	`go-winio`:                              `^peerlink/localipc$`,
	`prometheus/`:                           `^peerlink/metrics$`,
	`^peerlink/internal/bench$`:             `^peerlink/cmd/`,
	`charm.land/|charmbracelet/`:            `^peerlink/internal/(chatui|screenshot)$`,
	`gonum.org/`:                            `^peerlink/internal/charts$`,
	`modernc.org/`:                          `^peerlink/internal/chat$`,
	`schollz/`:                              `^peerlink/internal/invite$`,
	// Nothing but the program, and the daemon that it is, stands above account.
	`^peerlink/account$`: `^peerlink/(cmd/|internal/daemon$)`,
}

func TestThirdPartiesStayInTheirRooms(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "peerlink/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(out)) {
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
