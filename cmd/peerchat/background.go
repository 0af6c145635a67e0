package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

// daemonWait is how long a daemon may take to start: it opens files and
// sockets of this machine, and waits for no network.
const daemonWait = 15 * time.Second

// reachDaemon returns the client of the account's daemon and starts one if none
// runs.
func (o *options) reachDaemon(cmd *cobra.Command) (*control.Client, error) {
	c := control.NewClient(o.account)
	_, err := c.Daemon(cmd.Context())
	if !errors.Is(err, control.ErrNoDaemon) || errors.Is(err, errors.ErrUnsupported) {
		return c, err
	}
	pid, err := o.startDaemon(cmd.Context())
	if err != nil {
		return nil, daemonError{fmt.Errorf("start the daemon: %w", err)}
	}
	if o.verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "started the daemon, process %d\n", pid)
	}
	return c, nil
}

// daemonError is an error of having no daemon.
type daemonError struct{ error }

// Unwrap returns the cause.
func (e daemonError) Unwrap() error { return e.error }

// started is what a daemon in the background tells whoever started it.
type started struct {
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

// startDaemon starts a daemon that outlives this process, and waits until it
// serves, or until it has found out that another one does.
func (o *options) startDaemon(ctx context.Context) (pid int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	args := []string{"run", "--detached", "--account", o.account}
	if o.verbose {
		args = append(args, "--verbose")
	}
	cmd := exec.Command(exe, args...) //nolint:noctx // it is to live on
	cmd.Env = append(os.Environ(), runMainEnv+"=1")
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = detachedAttr()
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	defer func() { _ = cmd.Process.Release() }()
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(daemonWait))
	line, err := bufio.NewReaderSize(r, 64<<10).ReadSlice('\n')
	var s started
	switch {
	case ctx.Err() != nil:
		return pid, context.Cause(ctx)
	case err != nil && len(line) == 0:
		return pid, fmt.Errorf("process %d ended, or did not answer in %v (see %s in the account's folder): %w", pid, daemonWait, logFile, err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return pid, err
	}
	if !s.Ready {
		return pid, errors.New(s.Error)
	}
	return pid, nil
}

// starter is whoever started a daemon in the background; the zero value is
// nobody.
type starter struct{ w *os.File }

// starterFD is the first of exec.Cmd.ExtraFiles.
const starterFD = 3

func newStarter() starter { return starter{os.NewFile(starterFD, "starter")} }

func (s *starter) say(what started) {
	if s.w == nil {
		return
	}
	b, err := json.Marshal(what)
	if err == nil {
		_, _ = s.w.Write(append(b, '\n')) // he may have gone; that is no reason to end
	}
	_ = s.w.Close()
	s.w = nil
}

func (s *starter) ready() { s.say(started{Ready: true}) }

// end tells why there is no daemon, unless there has been one.
func (s *starter) end(err error) {
	if err != nil {
		s.say(started{Error: err.Error()})
	}
}
