package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"peerlink"
	"peerlink/dht"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/signalling"
	"peerlink/localipc"
	"peerlink/tlssock"
	"peerlink/webrtc/switchboard"
)

// Options vary an account for one process. The fields with a key (json) are its
// settings: config.json says under that key, each at most once and spelled exactly,
// what counts where the field is not set. The zero value of each field is its
// default.
type Options struct {
	// Name is what a new account and its device are called: the host's name.
	Name string `json:"-"`
	// Identity is the device that Create and New make the account for, instead of
	// one with a new key. Open refuses the folder of another device.
	Identity *identity.Identity `json:"-"`
	// Bootstrap are multiaddresses of nodes of the DHT to begin with. None: the
	// device is reached over direct TCP only.
	Bootstrap []string `json:"bootstrap,omitempty"`
	// DHTListen are multiaddresses to serve the DHT on, for a device that is
	// publicly reachable. None: it is a client.
	DHTListen []string `json:"dht_listen,omitempty"`
	// Listen are HOST:PORT to take direct TCP connections on. None: none.
	Listen []string `json:"listen,omitempty"`
	// Peers are the HOST:PORT under which devices take direct TCP connections.
	// Learn adds to them later.
	Peers map[identity.DeviceID][]string `json:"peers,omitempty"`
	// Engines are those of ICE, in order of preference: "tcp", "udp". None: both.
	Engines []string `json:"engines,omitempty"`
	// Servers are STUN and TURN servers for ICE, as URLs (stun:HOST:PORT,
	// turn:HOST:PORT?transport=tcp, turns:HOST:PORT). None: the bootstrap nodes,
	// which hand out credentials themselves. "none" alone: no server at all.
	Servers []string `json:"servers,omitempty"`
	// TURNUser and TURNPassword are the credentials for Servers that relay;
	// TURNSecret is a secret shared with them, in place of a password (coturn:
	// use-auth-secret).
	TURNUser     string `json:"turn_user,omitempty"`
	TURNPassword string `json:"turn_password,omitempty"`
	TURNSecret   string `json:"turn_secret,omitempty"`
	// Switchboards are wss:// addresses over which devices, browsers among them,
	// call each other up for WebRTC. None: none.
	Switchboards []string `json:"switchboard,omitempty"`
	// WebRTC is "on" or "off". "": on if there are Switchboards. With "on" calls
	// go through the DHT too.
	WebRTC string `json:"webrtc,omitempty"`
	// Loopback offers loopback addresses to peers too. One true is enough, here or
	// in config.json; so it is for LAN.
	Loopback bool `json:"loopback,omitempty"`
	// LAN finds devices on the local networks by mDNS, and is found by them,
	// without any bootstrap node.
	LAN bool `json:"lan,omitempty"`
	// LocalDir is the folder through which the devices of one machine find each
	// other and connect without a network, by shared memory or a Unix socket: the
	// same for all of them, an absolute path in config.json, and otherwise also one
	// below the working directory. "": the user's runtime folder (see localipc).
	// "off": none, and no such carriers. One that exists has to be closed to other
	// users (mode 0700); one that cannot be used is an error of Start. Where the
	// default one cannot be used, Logger hears why, and Here says no.
	LocalDir string `json:"local_dir,omitempty"`
	// NetworkKey is the secret of a private network of DHT nodes: 64 hex digits
	// that all its nodes and devices have. None: the network is open.
	NetworkKey string `json:"network_key,omitempty"`
	// RegionSize is how many bytes of memory a stream to a device of this machine
	// shares with it: 4 MiB (see shm.Config).
	RegionSize int `json:"-"`
	// Manager has the callbacks and bounds of the ConnectionManager. Its
	// Dialers and Listeners come before the account's own, and are used from Start
	// on; Identity, Trust (see Account.Trust) and Logger are the account's.
	Manager peerlink.Config `json:"-"`
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger `json:"-"`
}

// Account is a device's home, open in this process. Its life is Open (or Create, or
// New), Start, Shutdown and Close. Its methods may be called concurrently, in any
// order and more than once.
type Account struct {
	f       *folder
	opts    Options
	manager *peerlink.ConnectionManager
	dialer  *tlssock.Dialer
	twin    chan Twin     // has room for one
	life    life.Group    // ends with Close, and with it a Start under way
	over    chan struct{} // closed when Close is over
	err     error         // Close's, then

	mu      sync.Mutex        // not held while Close waits
	started bool              // and not closed
	here    bool              // devices of this machine reach it directly
	unix    *localipc.Dialer  // of devices of this machine; nil: they are not looked for
	node    *dht.Node         // nil without bootstrap nodes and LAN
	direct  *tlssock.Listener // nil without an address to listen on
	boards  []*switchboard.Client
	lines   []signalling.Line // of WebRTC
	closers []func() error    // in the order of Start
}

// Create makes a new account with one device in a folder that is empty or not
// there yet, and opens it.
func Create(dir string, opts Options) (*Account, error) {
	err := opts.check() // before there is a folder
	var f *folder
	if err == nil {
		f, err = createFolder(dir, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("create account in %s: %w", dir, err)
	}
	return open(f, opts)
}

// Open opens the account in a folder. The error matches ErrNoAccount if there
// is none, and ErrInUse if another process has it open.
func Open(dir string, opts Options) (*Account, error) {
	err := opts.check()
	var f *folder
	if err == nil {
		f, err = openFolder(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open account in %s: %w", dir, err)
	}
	if want := opts.Identity; want != nil && want.DeviceID() != f.id.DeviceID() {
		f.close()
		return nil, fmt.Errorf("open account in %s: it is device %s, and Options.Identity is %s", dir, f.id.DeviceID().Short(), want.DeviceID().Short())
	}
	return open(f, opts)
}

// New makes an account without a folder, for as long as it is open: nothing is
// read from a disk, and nothing written to one. So devices of the same machine are
// not found unless LocalDir names a folder for their sockets, a server of the DHT
// has a new node key at each start, and addresses that worked are forgotten at the
// end. What is decided (trust, revocations, the device list) holds until Close;
// Adopt and Reload fail with what matches errors.ErrUnsupported. Such a device
// keeps its id over several processes if each has the same Options.Identity
// (identity.Decode reads one).
func New(opts Options) (*Account, error) {
	err := opts.check()
	var id *identity.Identity
	if err == nil {
		id, err = opts.identity()
	}
	if err != nil {
		return nil, fmt.Errorf("new account: %w", err)
	}
	opts.LocalDir = cmp.Or(opts.LocalDir, localOff)
	return open(&folder{id: id, trust: new(identity.Trust), change: dirFiles("")}, opts)
}

// errNoFolder is why an account without a folder does not do something.
var errNoFolder = fmt.Errorf("account: it has no folder: %w", errors.ErrUnsupported)

// identity returns the one that is given, or a new one.
func (o Options) identity() (*identity.Identity, error) {
	switch {
	case o.Identity != nil:
		return o.Identity, nil
	case o.Name == "":
		o.Name, _ = os.Hostname()
		if identity.CheckName(o.Name) != nil {
			o.Name = "device"
		}
	}
	return identity.Generate(o.Name)
}

// open makes the account of a folder, which it owns.
func open(f *folder, opts Options) (*Account, error) {
	a := newAccount(f, opts)
	own := f.id.AccountID()
	f.trust.SetMembers(func(p identity.Peer) bool { return p.Account == own })
	cfg := a.opts.Manager
	cfg.Identity, cfg.Trust, cfg.Logger = f.id, f.trust, a.opts.Logger
	var err error
	if a.manager, err = peerlink.Open(cfg); err != nil {
		f.close()
		return nil, err
	}
	a.life.Go(a.keepTrust)
	return a, nil
}

func newAccount(f *folder, opts Options) *Account {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.fill(f.cfg)
	return &Account{
		f: f, opts: opts, twin: make(chan Twin, 1), over: make(chan struct{}),
		dialer: &tlssock.Dialer{Config: tlssock.Config{Identity: f.id, Trust: f.trust}},
	}
}

// fill sets each setting that is not set to that of file.
func (o *Options) fill(file Options) {
	to, from := reflect.ValueOf(o).Elem(), reflect.ValueOf(file)
	for _, f := range settings() {
		if at := to.FieldByIndex(f.Index); at.IsZero() {
			at.Set(from.FieldByIndex(f.Index))
		}
	}
}

// Dir returns the account's folder; "" without one.
func (a *Account) Dir() string { return a.f.dir }

// Identity returns the account's device.
func (a *Account) Identity() *identity.Identity { return a.f.id }

// Start opens the carriers and the DHT and starts the ConnectionManager. It
// returns as soon as they run here; the network is joined in the background
// (see Ready). ctx bounds the call only, and Close ends it. After an error the
// account is not started: it may be tried again. The error of a second Start of
// an account that runs matches peerlink.ErrStarted.
func (a *Account) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.life.Context(), func() { cancel(errClosed) })()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.life.Ended():
		return errClosed
	case a.started:
		return fmt.Errorf("account: %w", peerlink.ErrStarted)
	}
	err := a.start(ctx)
	if a.started = err == nil; a.started {
		return nil
	}
	if a.life.Ended() { // which is why
		err = errors.Join(errClosed, err)
	}
	return errors.Join(fmt.Errorf("start account %s: %w", cmp.Or(a.f.dir, "in memory"), err), a.stop())
}

// errClosed is why a closed account does not do something.
var errClosed = fmt.Errorf("account: %w", peerlink.ErrClosed)

// running returns why the account does not run. a.mu is held.
func (a *Account) running() error {
	switch {
	case a.life.Ended():
		return errClosed
	case !a.started:
		return fmt.Errorf("account: %w", peerlink.ErrNotStarted)
	}
	return nil
}

// start wires the parts: carriers of this machine, carriers over TLS, the DHT
// below ICE, the manager over all. The manager tries the dialers in this order.
func (a *Account) start(ctx context.Context) error {
	dialers, listeners, err := a.startLocal(ctx)
	if err != nil {
		return err
	}
	for peer, addrs := range a.opts.Peers {
		if err := a.dialer.Learn(peer, addrs...); err != nil {
			return err
		}
	}
	dialers = append(dialers, a.remembering())
	if len(a.opts.Listen) > 0 {
		l, err := tlssock.Listen(ctx, a.dialer.Config, a.opts.Listen...)
		if err != nil {
			return err
		}
		a.direct = l
		a.closers = append(a.closers, l.Close)
		listeners = append(listeners, l)
	}
	if len(a.opts.Bootstrap) > 0 || len(a.opts.DHTListen) > 0 || a.opts.LAN {
		t, err := a.startICE(ctx)
		if err != nil {
			return err
		}
		dialers, listeners = append(dialers, t), append(listeners, t)
	}
	web, err := a.startWebRTC()
	if err != nil {
		return err
	}
	if web != nil { // the last, as SCTP is slower than the others' streams
		dialers, listeners = append(dialers, web), append(listeners, web)
	}
	return a.manager.Start(dialers, listeners)
}

// startICE joins the DHT and has ICE signal through it.
func (a *Account) startICE(ctx context.Context) (*ice.Transport, error) {
	key, err := networkKey(a.opts.NetworkKey)
	if err != nil {
		return nil, err
	}
	cfg := dht.Config{
		Identity: a.f.id, Trust: a.f.trust, LAN: a.opts.LAN, NetworkKey: key, ReachFile: a.f.disk.path(reachFile),
		Bootstrap: a.opts.Bootstrap, Listen: a.opts.DHTListen, Logger: a.opts.Logger,
	}
	switch {
	case len(a.opts.DHTListen) > 0:
		cfg.Mode, cfg.DataDir = dht.Server, a.f.disk.path(nodeDir)
	case !a.opts.Loopback:
		cfg.Mode = dht.Auto
	}
	node, err := dht.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.node = node
	a.closers = append(a.closers, node.Close, a.watchTwins(node, a.opts.Logger))
	servers, err := a.servers()
	if err != nil {
		return nil, err
	}
	t, err := ice.New(ice.Config{
		Identity: a.f.id, Trust: a.f.trust, Signaller: a.share(node), Servers: servers, MapPorts: len(servers) > 0 && !a.opts.Loopback,
		Engines: a.opts.Engines, Loopback: a.opts.Loopback, Logger: a.opts.Logger, Direct: a.directPorts(),
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, t.Close)
	return t, nil
}

// directPorts returns what ICE tells callers of the listener for direct TCP; nil
// without one. Its addresses stand for as long as the account runs.
func (a *Account) directPorts() func() []netip.AddrPort {
	if a.direct == nil {
		return nil
	}
	var ports []netip.AddrPort
	for _, at := range a.direct.Addrs() {
		if ap, err := netip.ParseAddrPort(at.String()); err == nil {
			ports = append(ports, ap)
		}
	}
	return func() []netip.AddrPort { return ports }
}

// ConnectionManager returns the account's manager, from Open on and after Close:
// Listen on it and set its callbacks before Start, so that no caller comes too
// early. It does not block.
func (a *Account) ConnectionManager() *peerlink.ConnectionManager { return a.manager }

// Ready waits until others can reach this device: through the DHT, if it has
// bootstrap nodes or a LAN, else through a switchboard; without any, it is ready
// at once for those who have its address, or run on this machine (Here). The
// error says what is missing.
func (a *Account) Ready(ctx context.Context) error {
	a.mu.Lock()
	node, here, boards, err := a.node, a.here, a.boards, a.running()
	a.mu.Unlock()
	switch {
	case err != nil:
		return err
	case node == nil && len(boards) > 0:
		return readyOnBoard(ctx, boards)
	case node == nil && len(a.opts.Listen) == 0 && !here:
		return errors.New("account: nobody can reach this device: it has neither bootstrap nodes nor an address to listen on, does not look at the local network, has no switchboard, and is not found on this machine (config.json: bootstrap, listen, lan, local_dir, switchboard)")
	case node == nil:
		return nil
	}
	return node.Ready(ctx)
}

// Addrs returns the HOST:PORT on which the account takes direct TCP connections,
// with the ports that the system chose; none before Start.
func (a *Account) Addrs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.direct == nil {
		return nil
	}
	var addrs []string
	for _, addr := range a.direct.Addrs() {
		addrs = append(addrs, addr.String())
	}
	return addrs
}

// Learn tells under which HOST:PORT a device takes direct TCP connections, for
// this process, before or after Start.
func (a *Account) Learn(peer identity.DeviceID, addrs ...string) error {
	return a.dialer.Learn(peer, addrs...)
}

// Trust returns the store of what was decided, for carriers that the program makes
// itself: their handshakes ask it (tlssock.Config.Trust and its like), and so obey
// SetTrust, SetPolicy and revocations at once. The devices of one's own account are
// members (Trust.Member); SetMembers replaces that. It is there before Start, and is the
// same until Close. Decisions are made by the account's methods, on disk first: what is
// changed in the store itself reaches it some seconds later, or with Close.
func (a *Account) Trust() *identity.Trust { return a.f.trust }

// Trusted returns what was decided about a device or an account.
func (a *Account) Trusted(who identity.Subject) identity.Decision { return a.f.trust.Decision(who) }

// SetTrust allows or bans a device, an account or an authority, on disk first.
// Links to a device that is banned thereby close at once. A device that is allowed
// binds to the account under which it proves itself next: see identity.Trust.Admit.
func (a *Account) SetTrust(who identity.Subject, d identity.Decision) error {
	return a.changeTrust(func(t *identity.Trust) error { return t.Set(who, d) })
}

// AllowPeer allows a device as one of the account that p names, and of no other, on
// disk first: because the device has proven it, or by an earlier link.
func (a *Account) AllowPeer(p identity.Peer) error {
	return a.changeTrust(func(t *identity.Trust) error { return t.Allow(p) })
}

// SetPolicy says whether devices about which nothing was decided are let in, on
// disk first.
func (a *Account) SetPolicy(p identity.Policy) error {
	return a.changeTrust(func(t *identity.Trust) error { t.SetPolicy(p); return nil })
}

// changeTrust is the folder's, until Close.
func (a *Account) changeTrust(change func(*identity.Trust) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life.Ended() {
		return errClosed
	}
	return a.f.changeTrust(change)
}

// keepEvery is how long the trust file is left alone after it was written because of
// what links have shown: peers cause that, and must not keep the disk busy.
const keepEvery = 10 * time.Second

// keepTrust has the disk follow the trust store.
func (a *Account) keepTrust(ctx context.Context) {
	for {
		changed := a.f.trust.Changed()
		written, err := a.f.keepTrust()
		if err != nil {
			a.opts.Logger.Warn("account: " + err.Error())
		}
		if (written || err != nil) && pause.For(ctx, keepEvery) != nil {
			return
		}
		if err != nil {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all links and everything that Start began, the manager first, and
// gives the folder free; see the manager's Close for what was written, and its error.
// It may be called before Start, during it, and more than once: calls while it runs
// wait for it and return the same, later ones nil.
func (a *Account) Close() error {
	select {
	case <-a.over:
		return nil // it was told
	default:
	}
	if !a.life.EndWith(errClosed) {
		<-a.over
		return a.err
	}
	defer close(a.over)
	err := a.manager.Close()
	a.mu.Lock() // Start has ended
	closers := a.closers
	a.closers, a.started = nil, false
	a.mu.Unlock()
	a.err = errors.Join(err, closeAll(closers)) // callbacks may use the account meanwhile
	a.life.Wait()
	if _, err := a.f.keepTrust(); err != nil {
		a.err = errors.Join(a.err, err)
	}
	a.f.close()
	return a.err
}

// Shutdown is a Close that lets channels finish: it waits as the manager's Shutdown
// does, until ctx ends at the latest, and then closes. The error is the manager's,
// with a *peerlink.ShutdownError if links were cut, or Close's.
func (a *Account) Shutdown(ctx context.Context) error {
	return errors.Join(a.manager.Shutdown(ctx), a.Close())
}

// stop ends what a failed start began. a.mu is held.
func (a *Account) stop() error {
	err := closeAll(a.closers)
	a.closers, a.here, a.node, a.direct, a.boards, a.lines = nil, false, nil, nil, nil, nil
	return err
}

// closeAll closes the last first.
func closeAll(closers []func() error) error {
	var errs []error
	for _, c := range slices.Backward(closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
