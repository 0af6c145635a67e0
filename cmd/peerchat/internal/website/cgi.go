package website

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"peerlink/identity"
	"peerlink/internal/escape"
	"peerlink/internal/quota"
)

const (
	programsOfDevice = 4
	programsInAll    = 16

	defaultOutput = 64 << 20 // of a program
	maxCGIHeader  = 64 << 10
	maxComplaint  = 4 << 10         // of a program's standard error, for the log
	killGrace     = 2 * time.Second // for what a killed program has left behind to let go of its output
)

var errTooLong = errors.New("it ran for too long")

// programs runs CGI programs (RFC 3875). net/http/cgi has no way to end one that
// takes too long.
type programs struct {
	root   *os.Root
	dir    string // the same, absolute
	time   time.Duration
	output int64
	places *quota.Quota[identity.DeviceID]
	log    *slog.Logger
}

func newPrograms(cfg Config) (*programs, error) {
	dir, err := filepath.Abs(cfg.CGI)
	if err != nil {
		return nil, fmt.Errorf("serve CGI programs: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("serve CGI programs: %w", err)
	}
	return &programs{root, dir, cfg.CGITime, cfg.output, quota.New[identity.DeviceID](programsOfDevice, programsInAll), cfg.Logger}, nil
}

// find returns the program that a path names, and what follows its name.
func (p *programs) find(path string) (name, info string, err error) {
	rest := strings.TrimPrefix(path, CGIPath)
	name, _, _ = strings.Cut(rest, "/")
	info = rest[len(name):]
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "\\:\x00") || strings.ContainsRune(info, 0) {
		return "", "", fs.ErrNotExist
	}
	st, err := p.root.Stat(name) // a link may not lead out
	switch {
	case err != nil:
		return "", "", err
	case !st.Mode().IsRegular() || runtime.GOOS != "windows" && st.Mode()&0o111 == 0:
		return "", "", fs.ErrPermission
	}
	return name, info, nil
}

// ServeHTTP implements http.Handler.
func (p *programs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, info, err := p.find(r.URL.Path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		problem(w, r, http.StatusForbidden, "That is no program which this site may run.")
		return
	case err != nil:
		problem(w, r, http.StatusNotFound, "There is no program "+r.URL.Path+" here.")
		return
	case r.ContentLength < 0:
		w.Header().Set("Connection", "close")
		problem(w, r, http.StatusLengthRequired, "A program needs to be told the length of what it gets.")
		return
	}
	device := deviceOf(r)
	if p.places.Take(device) != nil {
		w.Header().Set("Retry-After", "5")
		problem(w, r, http.StatusServiceUnavailable, "Too many programs of this site run already. Try again.")
		return
	}
	defer p.places.Release(device)
	ctx, cancel := context.WithTimeoutCause(r.Context(), p.time, fmt.Errorf("%w: %v is the limit", errTooLong, p.time))
	defer cancel()
	// A caller that does not read holds nothing up for longer.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(p.time + lingering))
	_ = rc.SetReadDeadline(time.Now().Add(p.time + lingering))
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	p.run(ctx, w, r, name, info)
}

// run runs a program and passes its output on. One that fails after it has
// begun to answer has its connection cut: a cut never looks like an end.
func (p *programs) run(ctx context.Context, w http.ResponseWriter, r *http.Request, name, info string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, name))
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.dir, p.env(r, name, info), killGrace
	feed, err := feeder(cmd, w, r)
	if err != nil {
		p.fail(w, r, false, fmt.Errorf("standard input: %w", err))
		return
	}
	complaint := &head{left: maxComplaint}
	cmd.Stderr = complaint
	ownGroup(cmd)
	out, in := io.Pipe()
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		feed()()
		p.log.Warn("website: a program did not start", "program", name, "err", err)
		problem(w, r, http.StatusInternalServerError, "The program could not be started. The owner of this site finds the reason in the log.")
		return
	}
	fed := feed()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrWaitDelay) { // it has ended well; what it left behind still holds its output
			err = nil
		}
		_ = in.CloseWithError(err) // nil: the end
	}()
	begun, err := p.answer(w, out)
	cancel()
	_ = out.Close()
	<-ended
	fed()
	if err == nil {
		return
	}
	p.log.Warn("website: a program failed", "program", name, "device", deviceOf(r), "err", err, "stderr", complaint.String())
	p.fail(w, r, begun, err)
}

// feeder prepares a program's standard input. The first call begins to feed it,
// the second one ends that.
func feeder(cmd *exec.Cmd, w http.ResponseWriter, r *http.Request) (func() func(), error) {
	if r.ContentLength == 0 {
		return func() func() { return func() {} }, nil
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // or the body is dropped once the program begins to answer
	return func() func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(stdin, r.Body) // a program need not read
			_ = stdin.Close()
		}()
		return func() {
			select {
			case <-done:
				return
			case <-time.After(lingering / 10): // a body that has arrived is soon read
			}
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // and the connection ends
			_ = stdin.Close()
			<-done
		}
	}, nil
}

// fail says why a program's answer is none, or not whole.
func (p *programs) fail(w http.ResponseWriter, r *http.Request, begun bool, err error) {
	if begun {
		panic(http.ErrAbortHandler)
	}
	code, reason := http.StatusBadGateway, "The program failed: "+bare(err)+"."
	if errors.Is(err, errTooLong) {
		code = http.StatusGatewayTimeout
	}
	problem(w, r, code, reason)
}

// env is a program's environment. Nothing of this process's own goes into it
// but what programs need to run.
func (p *programs) env(r *http.Request, name, info string) []string {
	device := deviceOf(r).String()
	env := []string{
		"GATEWAY_INTERFACE=CGI/1.1", "SERVER_SOFTWARE=peerlink", "SERVER_PROTOCOL=HTTP/1.1", "SERVER_PORT=80",
		"SERVER_NAME=" + strings.TrimSuffix(r.Host, ":80"), "HTTP_HOST=" + r.Host,
		"REQUEST_METHOD=" + r.Method, "REQUEST_URI=" + r.URL.RequestURI(), "QUERY_STRING=" + r.URL.RawQuery,
		"SCRIPT_NAME=" + CGIPath + name, "SCRIPT_FILENAME=" + filepath.Join(p.dir, name), "PATH_INFO=" + info,
		"REMOTE_ADDR=" + device, "REMOTE_HOST=" + device, "REMOTE_USER=" + device, "AUTH_TYPE=peerlink", "PEERLINK_DEVICE=" + device,
	}
	if r.ContentLength > 0 {
		env = append(env, "CONTENT_LENGTH="+strconv.FormatInt(r.ContentLength, 10), "CONTENT_TYPE="+r.Header.Get("Content-Type"))
	}
	told := map[string]bool{"HTTP_HOST": true}
	for k, vs := range r.Header {
		key := "HTTP_" + strings.Map(func(c rune) rune {
			switch {
			case c >= 'a' && c <= 'z':
				return c - 'a' + 'A'
			case c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
				return c
			}
			return '_'
		}, k)
		if told[key] { // another spelling
			continue
		}
		told[key] = true
		sep := ", "
		if key == "HTTP_COOKIE" {
			sep = "; "
		}
		env = append(env, key+"="+strings.Join(vs, sep))
	}
	for _, k := range []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SYSTEMROOT", "COMSPEC", "PATHEXT", "WINDIR", "TEMP", "TMP"} {
		if v := os.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// answer passes a program's output on. begun tells whether anything has gone out.
func (p *programs) answer(w http.ResponseWriter, out io.Reader) (begun bool, err error) {
	limited := &io.LimitedReader{R: out, N: maxCGIHeader}
	br := bufio.NewReader(limited)
	header, err := textproto.NewReader(br).ReadMIMEHeader()
	switch {
	case limited.N == 0 && err != nil:
		return false, fmt.Errorf("its header is longer than %d bytes", maxCGIHeader)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return false, errors.New("it printed no header with an empty line after it")
	case err != nil:
		return false, err
	}
	code, err := status(header)
	if err != nil {
		return false, err
	}
	copyHeader(w.Header(), header)
	if limited.N = p.output - int64(br.Buffered()) + 1; limited.N <= 0 {
		return false, fmt.Errorf("it printed more than %d bytes", p.output)
	}
	w.WriteHeader(code)
	if err := stream(w, br); err != nil {
		return true, err
	}
	if limited.N == 0 {
		return true, fmt.Errorf("it printed more than %d bytes", p.output)
	}
	return true, nil
}

// status is the code that a program's header asks for.
func status(h textproto.MIMEHeader) (int, error) {
	said := h.Get("Status")
	switch {
	case said != "":
		digits, _, _ := strings.Cut(said, " ")
		code, err := strconv.Atoi(digits)
		if err != nil || code < 200 || code > 599 {
			return 0, fmt.Errorf("it printed the status %.100q, want 200 to 599", said)
		}
		return code, nil
	case h.Get("Location") != "":
		return http.StatusFound, nil
	case h.Get("Content-Type") == "":
		return 0, errors.New("it printed neither Content-Type nor Location nor Status")
	}
	return http.StatusOK, nil
}

// copyHeader takes over a program's header, but for what is the connection's.
func copyHeader(to http.Header, from textproto.MIMEHeader) {
	for k, vs := range from {
		switch k {
		case "Status", "Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Upgrade", "Te", "Proxy-Connection":
			continue
		}
		for _, v := range vs {
			if httpguts.ValidHeaderFieldName(k) && httpguts.ValidHeaderFieldValue(v) {
				to.Add(k, v)
			}
		}
	}
}

// stream copies and holds nothing back.
func stream(w http.ResponseWriter, r io.Reader) error {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, werr := w.Write(buf[:n])
			if errors.Is(werr, http.ErrBodyNotAllowed) { // HEAD, 204 and 304 have none
				werr = nil
			} else if werr == nil {
				werr = rc.Flush()
			}
			if werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// head keeps the beginning of what is written.
type head struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	left int
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(h.left, len(p))
	h.buf.Write(p[:n])
	h.left -= n
	return len(p), nil
}

// String returns what was kept, safe to show.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return escape.Text(h.buf.String())
}
