package carriertest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// orderVar is the variable that has a second process of this test binary obey an
// order.
const orderVar = "CARRIERTEST_ORDER"

// order is what the process that will be killed is to do.
type order struct {
	Root     string // of the site
	Identity []byte
	Peer     string // device id in the process that kills
	Calls    bool   // it makes the link
}

// What the process says, a line each.
const (
	saidReady   = "carriertest: ready"
	saidWritten = "carriertest: written"
	saidError   = "carriertest: error: "
)

// quickBeacons find a peer dead sooner than the default.
var quickBeacons = multiplex.Config{BeaconInterval: time.Second, BeaconTimeout: 5 * time.Second}

// killed has another process write, and kills it when its Write has returned. This
// process writes to it, too.
func killed(ctx context.Context, c *cell, w *world) ([]outcome, error) {
	here, _ := c.ends(w) // its links have quick beacons
	l, err := here.Listen(scheme + "channel")
	if err != nil {
		return nil, err
	}
	id, err := identity.Generate("victim")
	if err != nil {
		return nil, err
	}
	secret, err := id.Encode()
	if err != nil {
		return nil, err
	}
	v, err := launch(c.test, order{w.site.root, secret, here.id.DeviceID().String(), c.side == caller})
	if err != nil {
		return nil, err
	}
	defer v.kill()
	defer context.AfterFunc(ctx, v.kill)()
	var sock *channel.Socket
	if c.side == acceptor {
		if err = v.says(saidReady); err == nil {
			sock, err = ask(ctx, here, id.DeviceID(), "channel", peerlink.Reuse)
		}
	}
	if err == nil {
		err = v.says(saidWritten)
	}
	if err == nil && c.side == caller {
		sock, err = take(ctx, l) // what is written on has been accepted
	}
	if err != nil {
		return nil, err
	}
	o := outcome{wrote: fewBytes}
	var programs sync.WaitGroup
	programs.Go(func() { o.got, o.read = (&progress{conn: sock}).all() })
	programs.Go(func() { o.heard = refusal(sock) })
	v.kill()
	programs.Wait()
	return []outcome{o}, nil
}

// victim is the process that will be killed.
type victim struct {
	cmd *exec.Cmd
	out *bufio.Scanner
	in  io.Closer // its end ends the process
}

// launch starts this test binary with an order.
func launch(test string, o order) (*victim, error) {
	todo, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	only := "^" + strings.ReplaceAll(regexp.QuoteMeta(test), "/", "$/^") + "$"
	cmd := exec.Command(exe, "-test.run="+only, "-test.count=1")
	cmd.Env = append(os.Environ(), orderVar+"="+string(todo))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &victim{cmd, bufio.NewScanner(out), in}, cmd.Start()
}

// says waits for a line of the process.
func (v *victim) says(line string) error {
	for v.out.Scan() {
		if v.out.Text() == line {
			return nil
		}
		if why, ok := strings.CutPrefix(v.out.Text(), saidError); ok {
			return fmt.Errorf("the other process: %s", why)
		}
	}
	return fmt.Errorf("the other process ended before it said %q", line)
}

// kill kills the process; once more does nothing.
func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
	_ = v.in.Close()
}

// obey does what an order says, and stands until standard input ends, which ends
// the process.
func obey(ctx context.Context, c Carrier, text string) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	if err := write(ctx, c, text); err != nil {
		fmt.Println(saidError + err.Error())
		os.Exit(1)
	}
	fmt.Println(saidWritten)
	select {}
}

// write makes a link or waits for one, and writes.
func write(ctx context.Context, c Carrier, text string) error {
	var todo order
	if err := json.Unmarshal([]byte(text), &todo); err != nil {
		return err
	}
	id, err1 := identity.Decode(todo.Identity)
	peer, err2 := identity.ParseDeviceID(todo.Peer)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	d, err := c.join(ctx, &Site{root: todo.Root}, id)
	if err == nil {
		err = c.manage(d, multiplex.Config{})
	}
	if err != nil {
		return err
	}
	l, err := d.Listen(scheme + "channel")
	if err != nil {
		return err
	}
	fmt.Println(saidReady)
	var sock io.Writer
	if todo.Calls {
		sock, err = d.ConnectDevice(ctx, peer, scheme+"channel", peerlink.ConnectOptions{})
	} else {
		sock, err = l.Accept()
	}
	if err != nil {
		return err
	}
	_, err = sock.Write(pattern(0, fewBytes))
	return err
}
