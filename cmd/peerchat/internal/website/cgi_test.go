//go:build unix

package website

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const plain = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n"

// cgi serves programs by their names.
func cgi(t *testing.T, cfg Config, texts map[string]string) *http.Client {
	t.Helper()
	cfg.CGI = t.TempDir()
	for name, text := range texts {
		write(t, filepath.Join(cfg.CGI, name), text, 0o755)
	}
	return as(t, open(t, cfg), alice)
}

// fault: D1
func TestAProgramLearnsTheProvenDevice(t *testing.T) {
	t.Setenv("SECRET_OF_THE_OWNER", "secret")
	c := cgi(t, Config{}, map[string]string{"env": plain + "env; cat"})
	forged := mallory.String()
	resp, body := ask(t, c, http.MethodPost, "http://x/cgi-bin/env/more/path?a=b&c", "the body",
		"Peerlink-Device", forged, "peerlink_device", forged, "Proxy", "http://evil.example", "Content-Type", "text/x-test", "X_B", "1")
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.StatusCode, body)
	}
	for _, want := range []string{
		"PEERLINK_DEVICE=" + alice.String(), "HTTP_PEERLINK_DEVICE=" + alice.String(), "REMOTE_USER=" + alice.String(), "PATH_INFO=/more/path", "QUERY_STRING=a=b&c",
		"REQUEST_METHOD=POST", "CONTENT_LENGTH=8", "CONTENT_TYPE=text/x-test", "SCRIPT_NAME=/cgi-bin/env", "HTTP_X_B=1",
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if !strings.HasSuffix(body, "the body") {
		t.Errorf("the body did not arrive: %q", body)
	}
	for _, bad := range []string{forged, "HTTP_PROXY", "secret"} {
		if strings.Contains(body, bad) {
			t.Errorf("%s is in\n%s", bad, body)
		}
	}
}

func TestProgramsAnswerAsTheyLike(t *testing.T) {
	c := cgi(t, Config{}, map[string]string{
		"teapot":   "#!/bin/sh\nprintf 'Status: 418 I am\\nX-A: b\\nConnection: close\\n\\nshort and stout'",
		"redirect": "#!/bin/sh\nprintf 'Location: /elsewhere\\n\\n'",
		"idle":     plain + "echo did not read",
	})
	if resp, body := get(t, c, "/cgi-bin/teapot"); resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-A") != "b" || body != "short and stout" {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
	}
	if resp, _ := get(t, c, "/cgi-bin/redirect"); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/elsewhere" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp, body := ask(t, c, http.MethodHead, "http://x/cgi-bin/teapot", ""); resp.StatusCode != http.StatusTeapot || body != "" {
		t.Errorf("HEAD: %d %q", resp.StatusCode, body)
	}
	if _, body := ask(t, c, http.MethodPost, "http://x/cgi-bin/idle", strings.Repeat("x", 1<<20)); body != "did not read\n" {
		t.Errorf("%q", body)
	}
	req, _ := http.NewRequest(http.MethodPost, "http://x/cgi-bin/idle", io.MultiReader(strings.NewReader("x")))
	if resp, err := c.Do(req); err != nil || resp.StatusCode != http.StatusLengthRequired {
		t.Errorf("%v %v", resp, err)
	} else {
		resp.Body.Close()
	}
}

func TestAProgramMayAnswerBeforeItReads(t *testing.T) {
	c := cgi(t, Config{}, map[string]string{"late": plain + "echo begun; exec cat"})
	pr, pw := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "http://x/cgi-bin/late", pr)
	req.ContentLength = 4
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begun := make([]byte, len("begun\n"))
	if _, err := io.ReadFull(resp.Body, begun); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(pw, "body")
		_ = pw.Close()
	}()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "body" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestProgramsThatFailSayNothingWhole(t *testing.T) {
	c := cgi(t, Config{output: 1000}, map[string]string{
		"none":   "#!/bin/sh\n",
		"noend":  "#!/bin/sh\necho Content-Type: text/plain\n",
		"notype": "#!/bin/sh\nprintf 'X-A: b\\n\\nbody'",
		"status": "#!/bin/sh\nprintf 'Status: 99\\n\\n'",
		"broken": "#!/bin/sh\nprintf 'no header at all\\n\\n'",
		"shell":  "#!/nowhere/interpreter\n",
		"long":   "#!/bin/sh\nprintf 'X-A: '; head -c 200000 /dev/zero | tr '\\0' x; printf '\\n\\n'",
	})
	for _, name := range []string{"none", "noend", "notype", "status", "broken", "long", "shell"} {
		if resp, body := get(t, c, "/cgi-bin/"+name); resp.StatusCode/100 != 5 || !strings.Contains(body, "<h1>") {
			t.Errorf("%s: %d %q", name, resp.StatusCode, body)
		}
	}
	c = cgi(t, Config{output: 1000}, map[string]string{
		"exit":  plain + "echo half; exit 3",
		"kill":  plain + "echo half; kill -9 $$",
		"flood": plain + "exec cat /dev/zero",
	})
	for _, name := range []string{"exit", "kill", "flood"} {
		resp, err := c.Get("http://x/cgi-bin/" + name)
		if err != nil { // cut before the header was out
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusBadGateway { // it had failed before anything was out
			continue
		}
		if err == nil || len(b) > 1001 {
			t.Errorf("%s: %d %q, %v", name, resp.StatusCode, b, err)
		}
	}
}

func TestAProgramIsEndedInTimeWithAllItStarted(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	if err := syscall.Mkfifo(pids, 0o600); err != nil {
		t.Fatal(err)
	}
	c := cgi(t, Config{CGITime: time.Second}, map[string]string{"slow": "#!/bin/sh\nexec 9> " + pids + "\nsleep 600 & sleep 600; wait\n"})
	alive := make(chan error, 1)
	go func() { // ends when nobody has the other end open any more
		f, err := os.Open(pids)
		if err == nil {
			defer f.Close()
			_, err = io.Copy(io.Discard, f)
		}
		alive <- err
	}()
	resp, body := get(t, c, "/cgi-bin/slow")
	if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, "too long: 1s") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	select {
	case err := <-alive:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("what the program started lives")
	}
}

// fault: H1
func TestOnlyProgramsOfTheFolderRun(t *testing.T) {
	cfg := Config{CGI: t.TempDir()}
	write(t, filepath.Join(cfg.CGI, "text"), plain, 0o644)
	write(t, filepath.Join(cfg.CGI, ".hidden"), plain, 0o755)
	write(t, filepath.Join(cfg.CGI, "sub", "deep"), plain, 0o755)
	if err := os.Symlink("/bin/ls", filepath.Join(cfg.CGI, "out")); err != nil {
		t.Fatal(err)
	}
	c := as(t, open(t, cfg), alice)
	for path, code := range map[string]int{
		"text": 403, ".hidden": 404, "sub": 403, "sub/deep": 403, "out": 404, "": 404, "none": 404,
		"..%2f..%2fbin%2fls": 404, "../../bin/ls": 404, "..": 404, "a%00": 404,
	} {
		if resp, body := get(t, c, "/cgi-bin/"+path); resp.StatusCode != code {
			t.Errorf("%s: %d, want %d: %s", path, resp.StatusCode, code, body)
		}
	}
}

// fault: B1
func TestADeviceHasSoManyPrograms(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	c := cgi(t, Config{}, map[string]string{"wait": plain + "echo begun\ncat " + gate})
	for range programsOfDevice {
		resp, err := c.Get("http://x/cgi-bin/wait")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	if resp, _ := get(t, c, "/cgi-bin/wait"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", resp.StatusCode)
	}
	// They wait for ever: the end of the test ends them with the server.
}
