package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A machine has peerchat, with the daemons of two devices, and a home of its own.
type machine struct {
	dir        string
	env        []string
	alice, bob string // the devices' ids
}

// need skips the test where programs are missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT TESTED: %s is missing (apt-get install openssh-server openssh-client rsync git)", p)
		}
	}
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &machine{dir: dir, env: []string{
		"PATH=" + dir + ":" + os.Getenv("PATH") + ":/usr/sbin", "HOME=" + dir, "LC_ALL=C.UTF-8",
		"XDG_RUNTIME_DIR=" + dir + "/run", "XDG_DATA_HOME=" + dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_SSH_COMMAND=ssh -F " + dir + "/ssh_config", "RSYNC_RSH=ssh -F " + dir + "/ssh_config", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@localhost", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@localhost",
	}}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "peerchat"), "./cmd/peerchat")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.alice, m.bob = m.daemon(t, "alice"), m.daemon(t, "bob")
	return m
}

// daemon makes an account and runs its daemon. It returns the device's id.
func (m *machine) daemon(t *testing.T, name string) string {
	t.Helper()
	m.run(t, nil, "peerchat", "init", "--account", name, "--name", name)
	return m.firstLine(t, "peerchat", "run", "--account", name)
}

// command is a program in the machine's home. It is told to end, and at last
// killed, when the context ends.
func (m *machine) command(ctx context.Context, t *testing.T, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "env", append([]string{"--"}, argv...)...) // env looks in the machine's PATH
	cmd.Dir, cmd.Env, cmd.Stderr = m.dir, m.env, t.Output()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a program to its end, which must be a good one, and returns its output.
func (m *machine) run(t *testing.T, input []byte, argv ...string) []byte {
	t.Helper()
	cmd := m.command(limited(t), t, argv...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return out
}

// start starts a command. ended has its error once it has ended; the test waits
// for that.
func start(t *testing.T, cmd *exec.Cmd) (ended <-chan error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	errc := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { errc <- cmd.Wait() })
	t.Cleanup(wg.Wait)
	return errc
}

// firstLine starts a program, which runs until the end of the test, and returns
// the first line of its output.
func (m *machine) firstLine(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := m.command(t.Context(), t, argv...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cmd.Stdout = w
	start(t, cmd)
	_ = w.Close() // so that r ends with the program
	_ = r.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%s said nothing: %v", strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(line)
}

// pipe has a server's standard input and output joined to one pipe of that name
// at bob, while client runs. It returns how both ended.
func (m *machine) pipe(t *testing.T, name string, server []string, client func()) error {
	t.Helper()
	ctx := limited(t)
	listener := m.command(ctx, t, "peerchat", "pipe", "--account", "bob", "--listen", "--name", name, "--from", m.alice)
	program := m.command(ctx, t, server...)
	join(t, listener, program)
	join(t, program, listener)
	listens, serves := start(t, listener), start(t, program)
	for _, f := range []any{listener.Stdin, listener.Stdout, program.Stdin, program.Stdout} {
		_ = f.(*os.File).Close() // theirs now
	}
	for !bytes.Contains(m.run(t, nil, "peerchat", "status", "--account", "bob"), []byte("pipe://"+name)) {
		select {
		case err := <-listens:
			t.Fatalf("the listener ended before a client came: %v", err)
		default: // status takes its time
		}
	}
	client()
	return errors.Join(await(ctx, t, listens), await(ctx, t, serves))
}

// join makes one program's output another one's input.
func join(t *testing.T, from, to *exec.Cmd) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from.Stdout, to.Stdin = w, r
}

// inetd runs a program on each connection to an address of loopback, as inetd
// does, and lets alice's device connect to it. It returns where, at alice's end
// of peerchat forward, that is.
func (m *machine) inetd(t *testing.T, program ...string) (forwarded *net.TCPAddr) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.TCPConn).File()
			_ = c.Close()
			if err != nil {
				return
			}
			cmd := m.command(t.Context(), t, program...)
			cmd.Stdin, cmd.Stdout = f, f
			wg.Go(func() {
				defer f.Close()
				_ = cmd.Run() // its client tells
			})
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	at := l.Addr().String()
	m.run(t, nil, "peerchat", "forward", "allow", "--account", "bob", m.alice, at)
	line := m.firstLine(t, "peerchat", "forward", "--account", "alice", "--json", "-L", "0:"+at, m.bob)
	var said struct{ Listen string }
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	forwarded, err = net.ResolveTCPAddr("tcp", said.Listen)
	if err != nil {
		t.Fatal(err)
	}
	return forwarded
}
