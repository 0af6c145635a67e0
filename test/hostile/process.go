//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a peerchat that this program has started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, set before done is closed

	mu   sync.Mutex
	said bytes.Buffer  // the end of its output
	more chan struct{} // replaced when said grows
}

// start runs a program.
func start(name, prog string, env []string, files []*os.File, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(prog, args...), done: make(chan struct{}), more: make(chan struct{})} //nolint:noctx // stop ends it
	p.cmd.Env, p.cmd.ExtraFiles = env, files
	p.cmd.SysProcAttr = child()
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Write takes the process's output.
func (p *process) Write(b []byte) (int, error) {
	const most = 64 << 10
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said.Write(b)
	p.said.Next(max(0, p.said.Len()-most))
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

// output returns the end of what the process has said, and a channel that is closed
// when there is more.
func (p *process) output() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String(), p.more
}

// line waits for a line, and returns what the expression's group matched.
func (p *process) line(ctx context.Context, expr string) (string, error) {
	re := regexp.MustCompile("(?m)" + expr)
	for {
		said, more := p.output()
		if m := re.FindStringSubmatch(said); m != nil {
			return m[len(m)-1], nil
		}
		select {
		case <-more:
		case <-p.done:
			return "", fmt.Errorf("%s ended (%w) before it said %s:\n%s", p.name, p.err, expr, said)
		case <-ctx.Done():
			return "", fmt.Errorf("%s did not say %s: %w\n%s", p.name, expr, context.Cause(ctx), said)
		}
	}
}

// alive returns why the process has ended, or nil.
func (p *process) alive() error {
	select {
	case <-p.done:
		said, _ := p.output()
		return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, said)
	default:
		return nil
	}
}

// stop ends the process, and waits.
func (p *process) stop() {
	const patience = 5 * time.Second
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.done
}

// forgetPeak makes the kernel count the peak of the memory anew.
func (p *process) forgetPeak() error {
	return os.WriteFile(p.proc("clear_refs"), []byte("5"), 0)
}

// peak returns the most memory that the process has had since forgetPeak, in bytes.
func (p *process) peak() (int64, error) {
	kib, err := p.number("status", "VmHWM:")
	return kib << 10, err
}

// number reads a number that the kernel tells of the process.
func (p *process) number(file, name string) (int64, error) {
	b, err := os.ReadFile(p.proc(file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not tell %s", p.proc(file), name)
}

// descriptors returns how many files and sockets the process has open.
func (p *process) descriptors() int {
	all, _ := os.ReadDir(p.proc("fd"))
	return len(all)
}

func (p *process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file)
}

// daemon starts an account's daemon as a command would, in the background as far as
// its log goes, and returns once it serves.
func daemon(ctx context.Context, name, prog string, env []string, account string) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := start(name, prog, env, []*os.File{w}, "run", "--detached", "--account", account)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := io.ReadAll(r)
	if err == nil && !bytes.Contains(b, []byte(`"ready":true`)) {
		err = fmt.Errorf("it said %q", b)
	}
	if err != nil {
		p.stop()
		said, _ := p.output()
		return nil, fmt.Errorf("%s does not start: %w\n%s", name, err, said)
	}
	return p, nil
}

// child has the kernel end a process with this one.
func child() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
