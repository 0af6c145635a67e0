package main

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
	"syscall"
	"time"
)

// stopTimeout is how long a child may take to end by itself.
const stopTimeout = 3 * time.Second

// child is a peerchat process that prints JSON lines.
type child struct {
	cmd    *exec.Cmd
	name   string
	out    *bufio.Reader
	errOut tail
	ended  chan struct{} // closed when the process has ended
	err    error         // of Wait, set before
}

// tail keeps the end of what a process said, for when it fails.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 2048; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

// message is any line of a child.
type message struct {
	line
	summary
	Device string      `json:"device"`
	File   *fileReport `json:"file"`
}

// startChild starts this program again with other arguments. It ends with ctx.
func startChild(ctx context.Context, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, args...), name: args[0], ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), runMainEnv+"=1")
	c.cmd.Stderr = &c.errOut
	c.cmd.SysProcAttr = childAttr()
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = stopTimeout
	// A pipe of our own: Wait must not close it before its last line is read.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.out = w, bufio.NewReader(r)
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	_ = w.Close()
	go func() {
		defer close(c.ended)
		c.err = c.cmd.Wait()
	}()
	context.AfterFunc(ctx, func() {
		<-c.ended
		_ = r.Close()
	})
	return c, nil
}

// next reads the child's next line.
func (c *child) next(m *message) error {
	b, err := c.out.ReadBytes('\n')
	if err != nil {
		<-c.ended
		return fmt.Errorf("the %s process ended early: %w: %s", c.name, errors.Join(c.err), bytes.TrimSpace(c.errOut.b))
	}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("the %s process printed %.200q: %w", c.name, b, err)
	}
	return nil
}

// awaitReady reads until the child is ready, and returns its device id.
func (c *child) awaitReady() (string, error) {
	for {
		var m message
		if err := c.next(&m); err != nil {
			return "", err
		}
		if m.Step != "ready" {
			continue
		}
		if !m.OK {
			return "", errors.New(m.Error)
		}
		return m.Device, nil
	}
}

// wait waits for a child that ends by itself.
func (c *child) wait() error {
	_, _ = io.Copy(io.Discard, c.out)
	<-c.ended
	return c.err
}

// stop asks the child to end, and ends it if it does not.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}
