package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"peerlink/cmd/peerchat/internal/control"
)

// start is a command of the scripts: it runs a program in the background, its
// standard output in a file, until the script ends, and then checks that
// SIGTERM ended it as documented.
//
//	start FILE PROGRAM ARG...
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start FILE PROGRAM ARG...")
	}
	out, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	cmd := process(ts, args[1:])
	cmd.Stdout = out
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		_ = out.Close()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitSignal+int(syscall.SIGTERM) {
			ts.Logf("%s ended with %v, want status %d", args, err, exitSignal+int(syscall.SIGTERM))
			panic("a background process did not end as it should")
		}
	})
}

// process is a program with a script's environment.
func process(ts *testscript.TestScript, args []string) *exec.Cmd {
	exe, err := exec.LookPath(args[0])
	if err != nil {
		exe = filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], args[0])
	}
	cmd := exec.Command(exe, args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), []string{
		"XDG_DATA_HOME=" + ts.Getenv("XDG_DATA_HOME"), "PEERCHAT_BOOTSTRAP=" + ts.Getenv("PEERCHAT_BOOTSTRAP"),
		"XDG_RUNTIME_DIR=" + ts.Getenv("XDG_RUNTIME_DIR"), noDaemonEnv + "=" + ts.Getenv(noDaemonEnv),
	}
	return cmd
}

// converse is a command of the scripts: a program is given the lines of a file,
// and its input ends once it has printed the lines of another one; then it must
// end well. Its standard error is left in the file noted.
//
//	converse WORDS ANSWERS PROGRAM ARG...
func converse(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: converse WORDS ANSWERS PROGRAM ARG...")
	}
	cmd := process(ts, args[2:])
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	noted, err := os.Create(ts.MkAbs("noted"))
	ts.Check(err)
	defer noted.Close()
	cmd.Stderr = noted
	ts.Check(cmd.Start())
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.WriteString(in, ts.ReadFile(args[0])) // if that fails, so does what follows
	want := ts.ReadFile(args[1])
	got := make([]byte, len(want))
	n, _ := io.ReadFull(out, got)
	_ = in.Close()
	more, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || string(got[:n])+string(more) != want {
		ts.Fatalf("%q ended with %v; it said %q and %q, want %q", args[2:], err, string(got[:n])+string(more), ts.ReadFile("noted"), want)
	}
}

// webServer is a command of the scripts: it serves files of the script's folder
// until the script ends, and sets a variable to its HOST:PORT.
//
//	webserver VARIABLE FILE
func webServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: webserver VARIABLE FILE")
	}
	path := ts.MkAbs(args[1])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.Listener.Addr().String())
}

// endDaemon is a command of the scripts: the daemon of an account, whoever
// starts it, ends with the script, after the processes in the background that
// were started later.
//
//	enddaemon FOLDER
func endDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: enddaemon FOLDER")
	}
	folder := ts.MkAbs(args[0])
	ts.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := stopDaemon(ctx, control.NewClient(folder)); err != nil && !errors.Is(err, control.ErrNoDaemon) {
			ts.Logf("stop the daemon of %s: %v", folder, err)
			panic("a daemon did not end as it should")
		}
	})
}

// awaitLine is a command of the scripts: it waits until a file, which a process
// in the background writes, has its first whole line, and sets a variable to it;
// or, with a field, until a line is a JSON object that has the field.
//
//	awaitline FILE VARIABLE [FIELD]
func awaitLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: awaitline FILE VARIABLE [FIELD]")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		b, _ := os.ReadFile(ts.MkAbs(args[0]))
		whole := b[:bytes.LastIndexByte(b, '\n')+1]
		for line := range strings.Lines(string(whole)) {
			if v := value(ts, strings.TrimSuffix(line, "\n"), args[2:]); v != "" {
				ts.Setenv(args[1], v)
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no such line in %s", args[0])
		}
		time.Sleep(5 * time.Millisecond) // another process writes it: there is nothing to wait on
	}
}

// value is a line, or a field of the object that it is; "" without such a field.
func value(ts *testscript.TestScript, line string, field []string) string {
	if len(field) == 0 {
		return line
	}
	var obj map[string]any
	ts.Check(json.Unmarshal([]byte(line), &obj))
	switch v := obj[field[0]].(type) {
	case string:
		return v
	case []any:
		return v[0].(string)
	}
	return ""
}
