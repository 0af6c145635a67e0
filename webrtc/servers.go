package webrtc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pion "github.com/pion/webrtc/v4"
)

// credentialsTimeout bounds what the first signal of a call waits for
// credentials: a relay is worth that much, and other paths wait with it.
const credentialsTimeout = 2 * time.Second

// servers are those of one call, with their credentials. It blocks while they
// are asked for, all at once.
func (t *Transport) servers(ctx context.Context) []pion.ICEServer {
	ctx, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	all := make([]pion.ICEServer, len(t.cfg.Servers))
	var asked sync.WaitGroup
	for i, s := range t.cfg.Servers {
		asked.Go(func() {
			user, password := s.Username, s.Password
			if s.Credentials != nil {
				var err error
				if user, password, err = s.Credentials(ctx); err != nil {
					t.log.Debug("webrtc: server left out", "server", s.URL, "err", errors.Join(err, ctx.Err()))
					return
				}
			}
			all[i] = pion.ICEServer{URLs: []string{s.URL}, Username: user, Credential: password}
		})
	}
	asked.Wait()
	return slices.DeleteFunc(all, func(s pion.ICEServer) bool { return len(s.URLs) == 0 })
}
