//go:build linux

package nat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// peerchat is the program, built once; $PEERCHAT names another one to test.
var peerchat = sync.OnceValues(func() (string, error) {
	if prog := os.Getenv("PEERCHAT"); prog != "" {
		return prog, nil
	}
	dir, err := os.MkdirTemp("", "peerchat")
	if err != nil {
		return "", err
	}
	built = dir
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "peerchat"), "../../cmd/peerchat").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "peerchat"), nil
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// process is a peerchat that runs in a namespace.
type process struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser // its standard input
	lines chan event
	done  chan struct{}
	err   error // of Wait, set before done is closed

	mu  sync.Mutex
	log bytes.Buffer // the end of what it said on standard error
}

// event is a line of --json, or one of the log.
type event struct {
	at   time.Time
	raw  string
	json map[string]any // nil for the log
}

// start runs peerchat in a host's namespace, with its log.
func (p *place) start(args ...string) *process {
	p.l.t.Helper()
	prog, err := peerchat()
	if err != nil {
		p.l.t.Fatal(err)
	}
	q := &process{t: p.l.t, name: p.name, lines: make(chan event, 4096), done: make(chan struct{})}
	// The hosts share this machine's files: without "off" they would meet there.
	q.cmd = exec.Command("ip", append([]string{"netns", "exec", p.l.ns(p.name), prog, "--json", "--verbose", "--local", "off"}, args...)...)
	q.cmd.Env = append(os.Environ(), "NO_COLOR=1")
	stdout, err := q.cmd.StdoutPipe()
	if err != nil {
		p.l.t.Fatal(err)
	}
	stderr, err := q.cmd.StderrPipe()
	if err != nil {
		p.l.t.Fatal(err)
	}
	if q.in, err = q.cmd.StdinPipe(); err != nil { // open: a chat ends with its input
		p.l.t.Fatal(err)
	}
	if err := q.cmd.Start(); err != nil {
		p.l.t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { q.read(stdout, true) })
	readers.Go(func() { q.read(stderr, false) })
	go func() {
		readers.Wait()
		q.err = q.cmd.Wait()
		close(q.done)
	}()
	p.l.t.Cleanup(q.stop)
	return q
}

func (q *process) read(r io.Reader, isJSON bool) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		e := event{at: time.Now(), raw: s.Text()}
		if isJSON && json.Unmarshal(s.Bytes(), &e.json) != nil {
			e.json = nil
		}
		if !isJSON {
			q.mu.Lock()
			q.log.WriteString(e.raw + "\n")
			if q.log.Len() > 1<<16 {
				q.log.Next(1 << 15)
			}
			q.mu.Unlock()
		}
		select {
		case q.lines <- e:
		default: // nobody waits for lines any more
		}
	}
	_, _ = io.Copy(io.Discard, r)
}

// wait returns the first event that fits.
func (q *process) wait(limit time.Duration, what string, fits func(event) bool) event {
	q.t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	ended := q.done
	for {
		select {
		case e := <-q.lines:
			if fits(e) {
				return e
			}
			continue
		default:
		}
		select {
		case e := <-q.lines:
			if fits(e) {
				return e
			}
		case <-ended:
			ended = nil
			if len(q.lines) == 0 {
				q.t.Fatalf("%s ended (%v) before it said %s:\n%s", q.name, q.err, what, q.said())
			}
		case <-end.C:
			q.t.Fatalf("%s did not say %s within %v:\n%s", q.name, what, limit, q.said())
		}
	}
}

func (q *process) step(limit time.Duration, step string) event {
	q.t.Helper()
	return q.wait(limit, "step "+step, func(e event) bool { return e.json != nil && e.json["step"] == step })
}

func (q *process) said() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.log.String()
}

// finish waits for the process to end by itself.
func (q *process) finish(limit time.Duration) error {
	select {
	case <-q.done:
		return q.err
	case <-time.After(limit):
		return errors.New("it did not end")
	}
}

// stop ends the process, and waits.
func (q *process) stop() {
	select {
	case <-q.done:
		return
	default:
	}
	_ = q.cmd.Process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	select {
	case <-q.done:
	case <-ctx.Done():
		_ = q.cmd.Process.Kill()
		<-q.done
	}
}

// reached has the doctor try until it gets through, by one way if that is not
// empty.
func (d *peer) reached(to *peer, limit time.Duration, way string) (outcome, time.Duration) {
	d.n.t.Helper()
	start := time.Now()
	for {
		q := d.call("doctor", to.device)
		e := q.step(60*time.Second, "doctor")
		_ = q.finish(10 * time.Second)
		switch took := time.Since(start); {
		case e.json["ok"] == true && (way == "" || e.json["way"] == way):
			return outcomeOf(e), took
		case took > limit:
			d.n.t.Fatalf("not reached within %v: %s\n%s\n-- the other side:\n%s", limit, e.raw, q.said(), to.listen.said())
		}
	}
}

// network is a lab with nodes.
type network struct {
	*lab
	bootstrap string
	nodes     []*process
	places    []*place
}

// relaying are a node's flags for a relay that is as fast as it can be.
var relaying = []string{"--relay", "--relay-rate", "none", "--relay-rate-all", "none"}

// newNetwork starts three nodes; the first reflects and, with "--relay" among
// the flags, relays too.
func newNetwork(t testing.TB, flags ...string) *network {
	t.Helper()
	n := &network{lab: newLab(t)}
	n.startNodes(func(name string) (ip, multiaddr string) {
		ip = n.join(name)
		return ip, "/ip4/" + ip
	}, flags...)
	return n
}

// startNodes starts three nodes; join puts one on the public network.
func (n *network) startNodes(join func(name string) (ip, multiaddr string), flags ...string) {
	n.t.Helper()
	var addrs []string
	for i := range 3 {
		p := &place{l: n.lab, name: fmt.Sprintf("n%d", i)}
		n.namespace(p.name)
		ip, multiaddr := join(p.name)
		p.inside = ip
		args := []string{"node", "--listen", multiaddr + "/tcp/4001", "--data", n.t.TempDir()}
		if i == 0 {
			args = append(args, flags...)
		}
		if len(addrs) > 0 {
			args = append(args, "--bootstrap", addrs[0])
		}
		q := p.start(args...)
		ready := q.step(20*time.Second, "ready")
		for _, a := range ready.json["addrs"].([]any) {
			if s := a.(string); strings.HasPrefix(s, multiaddr+"/") {
				addrs = append(addrs, s)
			}
		}
		n.nodes, n.places = append(n.nodes, q), append(n.places, p)
	}
	if len(addrs) != 3 {
		n.t.Fatalf("the nodes have the addresses %q", addrs)
	}
	n.bootstrap = strings.Join(addrs, ",")
}

// peer is a device on a host, with a listening process.
type peer struct {
	*place
	n       *network
	listen  *process
	device  string
	folder  string
	sending string // the account that calls
}

// device starts a listening device on a host.
func (n *network) device(p *place, flags ...string) *peer {
	n.t.Helper()
	d := &peer{place: p, n: n, folder: n.t.TempDir(), sending: filepath.Join(n.t.TempDir(), "caller")}
	d.listen = p.start(append([]string{"listen", "--account", filepath.Join(n.t.TempDir(), "account"), "--bootstrap", n.bootstrap, "--into", d.folder, "--accept", "always"}, flags...)...)
	ready := d.listen.step(20*time.Second, "ready")
	if ready.json["ok"] != true {
		n.t.Fatalf("%s is not ready: %s\n%s", p.name, ready.raw, d.listen.said())
	}
	d.device = ready.json["device"].(string)
	return d
}

// call runs a command of this host's other account.
func (d *peer) call(args ...string) *process {
	return d.start(append(args, "--account", d.sending, "--bootstrap", d.n.bootstrap)...)
}
