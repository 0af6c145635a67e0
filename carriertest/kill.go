package carriertest

import (
	"bufio"
	"context"
	"fmt"
	"net"
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

// A second process of this test binary obeys these variables: the folder of the
// site, and the id of the device to call; without that it waits for a call. It says
// what it has done, a line each.
const (
	siteVar = "CARRIERTEST_SITE"
	callVar = "CARRIERTEST_CALL"

	saidReady   = "carriertest: ready " // and its id
	saidWritten = "carriertest: written"
	saidError   = "carriertest: error: "
)

// quickBeacons find a peer dead sooner than the default.
func quickBeacons() multiplex.Config {
	return multiplex.Config{BeaconInterval: time.Second, BeaconTimeout: 5 * time.Second}
}

// killed has another process write, and kills it when its Write has returned. This
// process writes to it, too.
func killed(ctx context.Context, c *cell, w *world) ([]outcome, error) {
	here, _ := c.ends(w) // its links have quick beacons
	l, err := here.Listen(scheme + "channel")
	if err != nil {
		return nil, err
	}
	call := ""
	if c.side == caller {
		call = here.id.DeviceID().String()
	}
	v, err := launch(ctx, c.test, w.site, call)
	if err != nil {
		return nil, err
	}
	defer v.kill()
	var sock *channel.Socket
	if call == "" {
		sock, err = v.answer(ctx, here)
	}
	if err == nil {
		_, err = v.says(saidWritten)
	}
	if err == nil && call != "" {
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
}

// launch starts this test binary with the test that is running.
func launch(ctx context.Context, test string, site *Site, call string) (*victim, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	only := "^" + strings.ReplaceAll(regexp.QuoteMeta(test), "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, exe, "-test.run="+only, "-test.count=1")
	cmd.Env = append(os.Environ(), siteVar+"="+site.root, callVar+"="+call)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &victim{cmd, bufio.NewScanner(out)}, cmd.Start()
}

// says waits for a line of the process, and returns the rest of it.
func (v *victim) says(begin string) (string, error) {
	for v.out.Scan() {
		if rest, ok := strings.CutPrefix(v.out.Text(), begin); ok {
			return rest, nil
		}
		if why, ok := strings.CutPrefix(v.out.Text(), saidError); ok {
			return "", fmt.Errorf("the other process: %s", why)
		}
	}
	return "", fmt.Errorf("the other process ended before it said %q", begin)
}

// answer opens a channel to the process once it is ready.
func (v *victim) answer(ctx context.Context, from *device) (*channel.Socket, error) {
	text, err := v.says(saidReady)
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseDeviceID(text)
	if err != nil {
		return nil, err
	}
	return ask(ctx, from, id, "channel", peerlink.Reuse)
}

// kill kills the process; once more does nothing.
func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// obey is all that the second process does. It ends by itself if it is not killed.
func obey(ctx context.Context, c Carrier, root string) {
	defer os.Exit(1)
	if err := write(ctx, c, &Site{root: root}, os.Getenv(callVar)); err != nil {
		fmt.Println(saidError + err.Error())
		return
	}
	fmt.Println(saidWritten)
	time.Sleep(2 * patience)
}

// write joins the site with a new device, opens a channel or waits for one, and
// writes.
func write(ctx context.Context, c Carrier, site *Site, call string) error {
	d, err := c.join(ctx, site)
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
	fmt.Println(saidReady + d.id.DeviceID().String())
	var sock net.Conn
	if call == "" {
		sock, err = l.Accept()
	} else {
		var id identity.DeviceID
		if id, err = identity.ParseDeviceID(call); err == nil {
			sock, err = ask(ctx, d, id, "channel", peerlink.Reuse)
		}
	}
	if err != nil {
		return err
	}
	_, err = sock.Write(pattern(0, fewBytes))
	return err
}
