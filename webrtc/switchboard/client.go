package switchboard

import (
	"cmp"
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
	lru "github.com/hashicorp/golang-lru/v2"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

const (
	// inboxLen is how many letters may wait for Receive; more are dropped.
	inboxLen = 64
	// seenKept is how many letters are remembered, to take each once. At the
	// server's rate that is a minute of one sender, twice a letter's life.
	seenKept = 4096
	// lineLife is when a line is made anew, so that its card stays valid.
	lineLife = cardLife / 2
	// waitingMost bounds the requests that wait for an answer.
	waitingMost = 256
	maxPause    = 30 * time.Second
)

// Config says who calls. Identity is required.
type Config struct {
	// Identity is this device.
	Identity *identity.Identity
	// TLS may be set where the server's certificate is not one that the
	// machine knows. nil: the machine's.
	TLS *tls.Config
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Client is a device's line to a switchboard: a Signaller. It comes back by
// itself when it breaks. Make one with Dial or New; all methods may be called
// concurrently.
type Client struct {
	cfg  Config
	url  string
	host string // name and port, as the server sees it
	key  hpke.PrivateKey
	http *http.Client

	inc  chan letter
	seen *lru.Cache[[letterIDLen]byte, struct{}] // letters that have come
	life life.Group                              // of run

	mu     sync.Mutex
	line   *line         // nil while there is none
	upc    chan struct{} // closed when there is one
	last   error         // why there is none
	number uint64
}

type line struct {
	ws      *websocket.Conn
	donec   chan struct{} // closed when it has ended
	mu      sync.Mutex
	waiting map[uint64]chan frame
}

var errClosed = fmt.Errorf("switchboard: line closed: %w", net.ErrClosed)

// Dial connects to the switchboard at rawURL (wss://host/path; ws:// for
// loopback) and returns once this device has proven itself there. It blocks
// until then, an error or the end of ctx. Close the Client when done.
func Dial(ctx context.Context, rawURL string, cfg Config) (*Client, error) {
	c, err := newClient(rawURL, cfg)
	if err != nil {
		return nil, err
	}
	l, err := c.connect(ctx)
	if err != nil {
		c.http.CloseIdleConnections()
		return nil, fmt.Errorf("switchboard: %s: %w", rawURL, err)
	}
	c.life.Go(func(ctx context.Context) { c.run(ctx, l) })
	return c, nil
}

// New is Dial for a device that can wait: it returns at once, and the line comes
// up when it can, with growing pauses between the attempts. The error is about
// rawURL or cfg. Close the Client when done.
func New(rawURL string, cfg Config) (*Client, error) {
	c, err := newClient(rawURL, cfg)
	if err != nil {
		return nil, err
	}
	c.life.Go(func(ctx context.Context) { c.run(ctx, nil) })
	return c, nil
}

// Ready returns when there is a line. It blocks until then, the end of ctx
// (with why there is none), or that of the Client (net.ErrClosed).
func (c *Client) Ready(ctx context.Context) error {
	if _, err := c.waitLine(ctx); err != nil {
		return fmt.Errorf("switchboard %s: %w", c.url, err)
	}
	return nil
}

// CheckURL tells what is wrong with the address of a switchboard.
func CheckURL(rawURL string) error {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss":
		return fmt.Errorf("switchboard: %.200q is no address of a switchboard, want wss://host:port/path", rawURL)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("switchboard: the address of %.200q has a user or a fragment, want wss://host:port/path", u.Host)
	}
	return nil
}

func newClient(rawURL string, cfg Config) (*Client, error) {
	if cfg.Identity == nil {
		return nil, errors.New("switchboard: Config.Identity is missing")
	}
	if err := CheckURL(rawURL); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err // CheckURL has looked
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	key, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("switchboard: make a key: %w", err)
	}
	return &Client{
		cfg: cfg, url: rawURL, host: u.Host, key: key,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.TLS, Proxy: http.ProxyFromEnvironment}},
		inc:  make(chan letter, inboxLen), upc: make(chan struct{}),
		seen: quota.NewLRU[[letterIDLen]byte, struct{}](seenKept),
	}, nil
}

// connect makes a line and proves this device on it.
func (c *Client) connect(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{HTTPClient: c.http, Subprotocols: []string{Protocol}}) //nolint:bodyclose // ws owns it, or there is none
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("answer %s: %w", resp.Status, err)
		}
		return nil, err
	}
	ws.SetReadLimit(maxFrame)
	if err := c.join(ctx, ws); err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	return &line{ws: ws, donec: make(chan struct{}), waiting: make(map[uint64]chan frame)}, nil
}

func (c *Client) join(ctx context.Context, ws *websocket.Conn) error {
	if ws.Subprotocol() != Protocol {
		return fmt.Errorf("the server does not speak %s", Protocol)
	}
	f, err := read(ctx, ws)
	if err == nil && (f.op != opChallenge || len(f.body) != nonceLen) {
		err = fmt.Errorf("message %d, want a challenge", f.op)
	}
	if err != nil {
		return err
	}
	b, err := encodeCard(c.cfg.Identity, c.key.PublicKey().Bytes(), time.Now())
	if err != nil {
		return err
	}
	own, err := decodeCard(b, time.Now())
	if err != nil {
		return fmt.Errorf("this device's own card: %w", err)
	}
	sig, err := c.cfg.Identity.Sign(joinPurpose, joinStatement(f.body, own.sum, c.host))
	if err != nil {
		return fmt.Errorf("sign the challenge: %w", err)
	}
	if err := write(ctx, ws, frame{op: opJoin, body: b, extra: sig}); err != nil {
		return err
	}
	if f, err = read(ctx, ws); err == nil && f.op != opJoined {
		err = fmt.Errorf("message %d, want joined", f.op)
	}
	return err
}

// run keeps the line up until the Client is closed or replaced. It begins with
// l, or with none.
func (c *Client) run(ctx context.Context, l *line) {
	defer c.http.CloseIdleConnections()
	pauses := pause.Backoff(100*time.Millisecond, maxPause)
	pauses.RandomizationFactor = 0.5 // the devices of a server that comes back do not call all at once
	for {
		var err error
		if l == nil {
			l, err = c.connect(ctx)
		}
		if err == nil {
			began := time.Now()
			err = c.hold(ctx, l)
			l = nil
			if websocket.CloseStatus(err) == statusReplaced {
				c.life.EndWith(fmt.Errorf("switchboard: %w: %w", errReplaced, net.ErrClosed))
			}
			if time.Since(began) > maxPause {
				pauses.Reset()
			}
		}
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.last = err
		c.mu.Unlock()
		c.cfg.Logger.Info("switchboard: no line", "url", c.url, "err", err)
		if pause.For(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// hold reads a line until it ends.
func (c *Client) hold(ctx context.Context, l *line) error {
	ctx, cancel := context.WithTimeout(ctx, lineLife)
	defer cancel()
	c.mu.Lock()
	c.line = l
	close(c.upc)
	c.mu.Unlock()
	pinged := make(chan struct{})
	go func() {
		defer close(pinged)
		l.ping(ctx)
	}()
	err := c.listen(ctx, l)
	c.mu.Lock()
	c.line, c.last, c.upc = nil, err, make(chan struct{})
	c.mu.Unlock()
	cancel()
	close(l.donec)
	_ = l.ws.CloseNow()
	<-pinged
	return err
}

// ping ends a line whose server has gone.
func (l *line) ping(ctx context.Context) {
	for pause.For(ctx, pingEvery) == nil {
		pctx, cancel := context.WithTimeout(ctx, pingTimeout)
		err := l.ws.Ping(pctx)
		cancel()
		if err != nil {
			_ = l.ws.CloseNow()
			return
		}
	}
}

func (c *Client) listen(ctx context.Context, l *line) error {
	for {
		f, err := read(ctx, l.ws)
		switch {
		case err != nil:
			return err
		case f.op == opLetter:
			c.deliver(f.body)
		default:
			l.answered(f)
		}
	}
}

// answered gives an answer to who waits for it.
func (l *line) answered(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answerc := l.waiting[f.number]; answerc != nil {
		delete(l.waiting, f.number)
		answerc <- f // holds 1
	}
}

// deliver opens a letter. The server may have made it up, or sent it twice.
func (c *Client) deliver(sealed []byte) {
	l, err := openLetter(c.cfg.Identity.DeviceID(), c.key, sealed, time.Now())
	if err == nil {
		if twice, _ := c.seen.ContainsOrAdd(l.id, struct{}{}); twice {
			err = errors.New("it came twice")
		}
	}
	if err == nil {
		select {
		case c.inc <- l:
			return
		default:
			err = errors.New("nobody receives")
		}
	}
	c.cfg.Logger.Debug("switchboard: letter dropped", "err", err)
}

// Receive returns the next message for this device and who sent it. It blocks
// until there is one, ctx ends, or the Client is closed or replaced by a newer
// line of the same device (net.ErrClosed).
func (c *Client) Receive(ctx context.Context) (identity.Peer, []byte, error) {
	select {
	case l := <-c.inc:
		return l.from, l.body, nil
	case <-ctx.Done():
		return identity.Peer{}, nil, fmt.Errorf("switchboard: receive: %w", context.Cause(ctx))
	case <-c.life.Done():
		return identity.Peer{}, nil, context.Cause(c.life.Context())
	}
}

// Send has msg, at most MaxMessageLen bytes, delivered to the device. It blocks
// until the server has passed it on, waiting for the line if need be, and fails
// if the device is not connected.
func (c *Client) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	if err := c.send(ctx, to, msg); err != nil {
		return fmt.Errorf("switchboard %s: send to %s: %w", c.url, to.Short(), err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	for tries := 1; ; tries++ {
		f, err := c.ask(ctx, frame{op: opAsk, device: to})
		if err != nil {
			return err
		}
		if f.op != opCard {
			return answerError(f.op)
		}
		card, err := decodeCard(f.body, time.Now())
		if err == nil && card.peer.Device != to {
			err = fmt.Errorf("the server gave the card of %s", card.peer.Device.Short())
		}
		if err != nil {
			return err
		}
		var id [letterIDLen]byte
		rand.Read(id[:])
		sealed, err := sealLetter(c.cfg.Identity, card, id, time.Now(), msg)
		if err != nil {
			return err
		}
		f, err = c.ask(ctx, frame{op: opSend, device: to, body: sealed, extra: card.sum[:]})
		switch {
		case err != nil:
			return err
		case f.op == opTaken:
			return nil
		case f.op == opStale && tries < 3: // it has just come back
			continue
		}
		return answerError(f.op)
	}
}

func answerError(o op) error {
	switch o {
	case opAbsent:
		return errors.New("the device is not connected to this switchboard")
	case opBusy:
		return errors.New("too many messages wait for the device already")
	case opStale:
		return errors.New("the device's line changes all the time")
	}
	return fmt.Errorf("unexpected answer %d", o)
}

func (c *Client) ask(ctx context.Context, f frame) (frame, error) {
	l, err := c.waitLine(ctx)
	if err != nil {
		return f, err
	}
	c.mu.Lock()
	c.number++
	f.number = c.number
	c.mu.Unlock()
	answerc := make(chan frame, 1)
	l.mu.Lock()
	if len(l.waiting) >= waitingMost {
		l.mu.Unlock()
		return f, fmt.Errorf("%d requests wait for the server already", waitingMost)
	}
	l.waiting[f.number] = answerc
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, f.number)
		l.mu.Unlock()
	}()
	// A write that is cut breaks the line, so it does not end with ctx.
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if err := write(wctx, l.ws, f); err != nil {
		return f, err
	}
	select {
	case f = <-answerc:
		return f, nil
	case <-l.donec:
		return f, errors.New("the line broke before the answer")
	case <-ctx.Done():
		return f, fmt.Errorf("no answer of the server: %w", context.Cause(ctx))
	}
}

// waitLine returns the line, once there is one.
func (c *Client) waitLine(ctx context.Context) (*line, error) {
	for {
		c.mu.Lock()
		l, upc, last := c.line, c.upc, c.last
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-upc:
		case <-c.life.Done():
			return nil, context.Cause(c.life.Context())
		case <-ctx.Done():
			return nil, fmt.Errorf("there is no line (%v): %w", last, context.Cause(ctx)) //nolint:errorlint // last tells, and is no cause
		}
	}
}

// Close ends the line and waits for it.
func (c *Client) Close() error {
	c.life.EndWith(errClosed)
	c.life.Wait()
	return nil
}
