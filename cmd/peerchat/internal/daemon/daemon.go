package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
)

// maxStories is how many devices' connects are remembered: as many as a person
// has contacts, and some.
const maxStories = 256

// Config is what a Daemon is made of. Account is required and stays the
// caller's.
type Config struct {
	// Account must have been started.
	Account *account.Account
	// Logger gets what no command is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Daemon serves the commands of one account. Its methods may be called
// concurrently.
type Daemon struct {
	acc      *account.Account
	log      *slog.Logger
	since    time.Time
	contacts *book
	devices  *devices
	stories  *lru.Cache[identity.DeviceID, *story]
	offers   offers
	places   *quota.Quota[identity.DeviceID] // of channels that commands listen for
	talk     *talk
	problems []string // found at the start

	rules    *forward.Rules
	forwards *forward.Server

	life life.Group
	ends []func() error // of what was opened; may be called again

	codes    *codes.Network
	inviting chan struct{} // has one for each open invite
	adding   chan struct{} // has one for the one code that this device shows of itself

	stopped chan struct{}
	stop    func()

	mu      sync.Mutex
	twin    string // what is to be said about another process of this device
	why     error  // of an end that no command asked for
	servers []*control.Server
	claims  map[string]int
	waiting []net.Conn // of the commands that have asked for the end
	closed  bool
}

// New makes the daemon of an account that was started. Close it before the
// account.
func New(cfg Config) (*Daemon, error) {
	if cfg.Account == nil {
		return nil, errors.New("daemon: there is no account")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	d := &Daemon{acc: cfg.Account, log: cfg.Logger, since: time.Now(), stopped: make(chan struct{}), inviting: make(chan struct{}, maxOpenInvites), adding: make(chan struct{}, 1), claims: map[string]int{}}
	d.stop = sync.OnceFunc(func() { close(d.stopped) })
	d.codes = &codes.Network{
		Manager: d.acc.ConnectionManager(), Rendezvous: rendezvous{d.acc}, Me: d.acc.Identity().DeviceID(), Listen: func(pattern string) (net.Listener, error) { return d.claim(pattern, nil) }, Logger: d.log,
	}
	d.offers.waiting = map[string]*offer{}
	d.places = quota.NewPools[identity.DeviceID](quota.Limits{Each: membersEach, All: membersAll}, quota.Limits{Each: strangersEach, All: strangersAll})
	var err error
	if d.stories, err = lru.New[identity.DeviceID, *story](maxStories); err != nil {
		return nil, err
	}
	if d.contacts, err = openBook(cfg.Account); err != nil {
		return nil, err
	}
	for _, open := range []func() error{d.openDevices, d.openForwards, d.openChat} {
		if err := open(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	d.life.Go(d.watchTwin)
	return d, nil
}

// onClose has Close call end, the last one first. New alone calls it.
func (d *Daemon) onClose(end func() error) { d.ends = append(d.ends, end) }

// handlers are what commands can ask for.
func (d *Daemon) handlers() control.Handlers {
	h := control.Handlers{
		control.OpConnect: d.connect, control.OpListen: d.listen, control.OpTake: d.take,
		string(control.OpStop): func(_ context.Context, c *control.Call) error {
			err := c.Answer(nil)
			d.mu.Lock()
			d.waiting = append(d.waiting, c.Detach())
			d.mu.Unlock()
			d.stop()
			return err
		},
	}
	d.talk.handlers(h)
	d.deviceHandlers(h)
	control.OpReady.On(h, func(ctx context.Context, _ control.None) (no control.None, err error) { return no, d.acc.Ready(ctx) })
	control.OpStatus.On(h, d.status)
	control.OpMetrics.On(h, d.metrics)
	control.OpContacts.On(h, d.changeContacts)
	control.OpForwards.On(h, d.changeForwards)
	control.OpChanges.On(h, d.changes)
	OpDoctor.On(h, d.examine)
	return h
}

// Serve answers commands on a listener, which the daemon closes with itself.
func (d *Daemon) Serve(l net.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = l.Close()
		return
	}
	d.servers = append(d.servers, control.Serve(l, control.Config{Handlers: d.handlers(), Logger: d.log}))
}

// Stopped is closed when a command has asked the daemon to end.
func (d *Daemon) Stopped() <-chan struct{} { return d.stopped }

// Reload reads the account's settings again, as account.Reload does.
func (d *Daemon) Reload() (applied, restart []string, err error) { return d.acc.Reload() }

// Settle blocks until no command has a channel open, or until ctx ends: what
// commands wrote before they closed their channels has then been passed on.
func (d *Daemon) Settle(ctx context.Context) {
	d.mu.Lock()
	servers := slices.Clone(d.servers)
	d.mu.Unlock()
	for _, s := range servers {
		s.Settle(ctx)
	}
}

// Close ends what commands have open and waits for it. It may be called more
// than once.
func (d *Daemon) Close() error {
	d.mu.Lock()
	d.closed = true
	servers := d.servers
	d.servers = nil
	d.mu.Unlock()
	d.offers.drop(nil)
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	d.life.End()
	for _, end := range slices.Backward(d.ends) {
		errs = append(errs, end())
	}
	d.life.Wait()
	return errors.Join(errs...)
}

// Gone tells those who asked for the end that all is over: call it when the
// account is closed as well, so that they can have it.
func (d *Daemon) Gone() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.waiting {
		_ = c.Close()
	}
	d.waiting = nil
}
