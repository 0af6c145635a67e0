//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"peerlink/dht"
	"peerlink/identity"
)

// ground is what all attacks of a run share: the program, and accounts that know
// each other. Each attack has processes of its own, on copies of the accounts.
type ground struct {
	settings
	dir      string
	accounts string // a folder with the folders victim, honest and caller
	victim   identity.DeviceID
	visitor  *identity.Identity // a contact of the victim, which this process plays itself
	turncoat *identity.Identity // a contact, too, and hostile
	worlds   int
}

// setUpTimeout is for one step of setting up, on a slow machine.
const setUpTimeout = time.Minute

// maxFiles is what the receiver takes at once; a contact may add five times that in a
// day.
const maxFiles = 500

// newGround builds the program and makes the accounts.
func newGround(ctx context.Context, s settings) (g *ground, err error) {
	g = &ground{settings: s}
	if g.dir, err = os.MkdirTemp("", "h"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.clear()
		}
	}()
	if g.prog == "" {
		g.prog = filepath.Join(g.dir, "peerchat")
		if err := build(ctx, g.prog); err != nil {
			return nil, err
		}
	}
	g.accounts = filepath.Join(g.dir, "accounts")
	if err := errors.Join(os.Mkdir(g.accounts, 0o700), g.contacts(ctx)); err != nil {
		return nil, err
	}
	return g, nil
}

// build builds the program from the module in which this one was started.
func build(ctx context.Context, to string) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, "./cmd/peerchat")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/peerchat in %s: %w\n%s", cmd.Dir, err, out)
	}
	return nil
}

// contacts makes the accounts, and the honest ones each other's contacts.
func (g *ground) contacts(ctx context.Context) (err error) {
	w := &world{ground: g, dir: g.accounts}
	if g.visitor, err = identity.Generate("visitor"); err != nil {
		return err
	}
	if g.turncoat, err = identity.Generate("turncoat"); err != nil {
		return err
	}
	ids := map[string]identity.DeviceID{"visitor": g.visitor.DeviceID(), "turncoat": g.turncoat.DeviceID()}
	for _, name := range []string{"victim", "honest", "caller"} {
		if _, err := w.command(ctx, name, "", "init", "--no-daemon"); err != nil {
			return err
		}
		out, err := w.command(ctx, name, "", "id", "--no-daemon")
		if err != nil {
			return err
		}
		if ids[name], err = identity.ParseDeviceID(strings.TrimSpace(out)); err != nil {
			return err
		}
	}
	g.victim = ids["victim"]
	for _, c := range []string{"honest", "caller", "visitor", "turncoat"} {
		if _, err := w.command(ctx, "victim", "", "contacts", "add", "--no-daemon", c, ids[c].String()); err != nil {
			return err
		}
	}
	for _, name := range []string{"honest", "caller"} {
		if _, err := w.command(ctx, name, "", "contacts", "add", "--no-daemon", "victim", g.victim.String()); err != nil {
			return err
		}
	}
	return nil
}

// clear removes all that the run has on disk.
func (g *ground) clear() { _ = os.RemoveAll(g.dir) }

// world is the processes of one attack.
type world struct {
	*ground
	dir string

	node, daemon, receiver, honest *process

	bootstrap   string            // the node's multiaddress
	nodeKey     ed25519.PublicKey // from there
	turn, board string            // where the node has TURN, and the switchboard's URL
	tcp         string            // where the victim's daemon takes direct connections
}

// newWorld starts a node, the victim's daemon, a command that receives files for it,
// and the daemon of an honest contact.
func (g *ground) newWorld(ctx context.Context) (w *world, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, setUpTimeout, errors.New("the processes are not there in time"))
	defer cancel()
	w = &world{ground: g}
	g.worlds++
	w.dir = filepath.Join(g.dir, "w"+strconv.Itoa(g.worlds)) // short: sockets' paths are bounded
	defer func() {
		if err != nil {
			w.stop()
			w.clear()
		}
	}()
	if err := copyAccounts(w.dir, g.accounts); err != nil {
		return nil, err
	}
	// Others may pass through to where only the program's own modes keep them off.
	if err := errors.Join(os.Chmod(g.dir, 0o711), os.Chmod(w.dir, 0o711)); err != nil {
		return nil, err
	}
	for _, folder := range []string{"run", "tmp", "received"} {
		if err := os.MkdirAll(filepath.Join(w.dir, folder), 0o711); err != nil {
			return nil, err
		}
	}
	return w, errors.Join(w.startNode(ctx), w.startVictim(ctx), w.startHonest(ctx))
}

// copyAccounts copies a folder of accounts, which nobody else may read.
func copyAccounts(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()])
	})
}

func (w *world) startNode(ctx context.Context) (err error) {
	friends := filepath.Join(w.dir, "friends") // that have room of their own at the relay
	if err := os.WriteFile(friends, []byte(w.visitor.DeviceID().String()+"\n"), 0o600); err != nil {
		return err
	}
	w.node, err = start("the node", w.prog, w.env(), nil, "node", "--listen", "/ip4/127.0.0.1/tcp/0", "--data", filepath.Join(w.dir, "node"),
		"--stun", "127.0.0.1:0", "--relay", "--relay-private", "--relay-for", "all,"+friends, "--signal", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if w.bootstrap, err = w.node.line(ctx, `^(/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+)$`); err != nil {
		return err
	}
	if w.turn, err = w.node.line(ctx, `TURN on (\S+)$`); err != nil {
		return err
	}
	if w.board, err = w.node.line(ctx, `^switchboard on (\S+)$`); err != nil {
		return err
	}
	_, w.nodeKey, err = dht.NodeAt(w.bootstrap)
	return err
}

func (w *world) startVictim(ctx context.Context) error {
	if w.bootstrap == "" {
		return nil // there is an error already
	}
	err := w.config("victim", map[string]any{"listen": []string{"127.0.0.1:0"}, "bootstrap": []string{w.bootstrap}, "loopback": true})
	if err != nil {
		return err
	}
	if w.daemon, err = daemon(ctx, "the victim's daemon", w.prog, w.env(), w.account("victim")); err != nil {
		return err
	}
	out, err := w.command(ctx, "victim", "", "status", "--json")
	if err != nil {
		return err
	}
	var st struct {
		TCP []string `json:"tcp"`
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil || len(st.TCP) == 0 {
		return fmt.Errorf("the victim's daemon does not tell where it listens: %w\n%s", err, out)
	}
	w.tcp = st.TCP[0]
	w.receiver, err = start("the receiver of files", w.prog, w.env(), nil, "receive", "--account", w.account("victim"), "--accept", "contacts", "--max-files", strconv.Itoa(maxFiles), filepath.Join(w.dir, "received"))
	if err != nil {
		return err
	}
	_, err = w.receiver.line(ctx, "this device is (.*)")
	return err
}

// startHonest starts the contact's daemon, which has nothing but the victim's address:
// carriers of one machine would pass by what is attacked.
func (w *world) startHonest(ctx context.Context) error {
	if w.tcp == "" {
		return nil // there is an error already
	}
	err := w.config("honest", map[string]any{"peers": map[string][]string{w.victim.String(): {w.tcp}}, "local_dir": "off", "loopback": true})
	if err != nil {
		return err
	}
	w.honest, err = daemon(ctx, "the contact's daemon", w.prog, w.env(), w.account("honest"))
	return err
}

// stop ends the processes, and waits for them.
func (w *world) stop() {
	for _, p := range []*process{w.honest, w.receiver, w.daemon, w.node} {
		if p != nil {
			p.stop()
		}
	}
}

func (w *world) clear() { _ = os.RemoveAll(w.dir) }

// died returns which of the processes has ended.
func (w *world) died() error {
	var errs []error
	for _, p := range []*process{w.node, w.daemon, w.receiver, w.honest} {
		errs = append(errs, p.alive())
	}
	return errors.Join(errs...)
}

func (w *world) account(name string) string { return filepath.Join(w.dir, name) }

// config writes an account's settings.
func (w *world) config(name string, settings map[string]any) error {
	b, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.account(name), "config.json"), b, 0o600)
}

// env has nothing that could lead the program out of the world's folder.
func (w *world) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "NO_COLOR=1", "TMPDIR=" + filepath.Join(w.dir, "tmp"),
		"XDG_RUNTIME_DIR=" + filepath.Join(w.dir, "run"), "XDG_DATA_HOME=" + filepath.Join(w.dir, "data"),
	}
}

// command runs a command of an account to its end and returns what it printed.
func (w *world) command(ctx context.Context, account, in string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.prog, append(args, "--account", w.account(account))...)
	cmd.Env, cmd.Dir, cmd.Stdin = w.env(), w.dir, strings.NewReader(in)
	cmd.SysProcAttr = child()
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("peerchat %s: %w\n%s%s", strings.Join(args, " "), err, out.Bytes(), said.Bytes())
	}
	return out.String(), nil
}

// onDisk returns how many bytes and entries there are below a folder of the world.
func (w *world) onDisk(folder string) (bytes, entries int64) {
	_ = filepath.WalkDir(filepath.Join(w.dir, folder), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a file that has just gone takes no room
		}
		entries++
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	return bytes, entries
}
