package transfer_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"peerlink/cmd/peerchat/internal/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

type outcome struct {
	file transfer.File
	err  error
}

// receiver runs Receive on the far end of a pipe.
func receiver(t *testing.T, dir string, l transfer.Limits) (net.Conn, <-chan outcome) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	c := make(chan outcome, 1)
	go func() {
		defer root.Close()
		defer b.Close()
		f, err := transfer.Receive(b, root, l, nil)
		c <- outcome{f, err}
	}()
	t.Cleanup(func() { _ = a.Close() })
	return a, c
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func TestFileArrivesWholeUnderAFreeName(t *testing.T) {
	dir := t.TempDir()
	want := []string{"photo.jpg", "photo (1).jpg", "photo (2).jpg"}
	for i, size := range []int{0, 1, 3 << 20} {
		data := content(size)
		conn, done := receiver(t, dir, transfer.Limits{})
		told := 0
		sum, err := transfer.Send(conn, "photo.jpg", int64(size), bytes.NewReader(data), func(n int) { told += n })
		if err != nil {
			t.Fatal(err)
		}
		o := <-done
		if o.err != nil || o.file.Sum != sum || sum != sha256.Sum256(data) || o.file.Name != want[i] || told != size {
			t.Errorf("%d bytes: %+v, sum %x, progress %d", size, o, sum, told)
		}
		got, err := os.ReadFile(filepath.Join(dir, want[i]))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s has %d bytes, %v", want[i], len(got), err)
		}
	}
}

// fault: H1
func TestHostileNamesAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", `a\b`, "a/b", "a:b", "CON", "con.txt", "lpt1 .x", "dot.", "space ", " x", "nul\x00", "bell\a", "\x1b[2J", "rtl\u202egpj.exe", strings.Repeat("x", 256), "\xff", ".peerlink-part-x"} {
		if err := transfer.CheckName(name); err == nil {
			t.Errorf("CheckName(%q) allows it", name)
		}
		conn, done := receiver(t, dir, transfer.Limits{})
		announce(t, conn, name, 5)
		verdict, _ := io.ReadAll(conn)
		if o := <-done; o.err == nil {
			t.Errorf("%q was received as %q", name, o.file.Name)
		}
		if len(verdict) > 3 && verdict[3] == 0xc3 {
			t.Errorf("%q was accepted", name)
		}
	}
	if es := entries(t, dir); len(es) != 0 {
		t.Errorf("left behind: %q", es)
	}
}

// announce writes a header that Send would not.
func announce(t *testing.T, w io.Writer, name string, size byte) {
	t.Helper()
	body := append([]byte{0x93, 1, 0xda, byte(len(name) >> 8), byte(len(name))}, name...)
	body = append(body, size)
	if _, err := w.Write(append([]byte{byte(len(body) >> 8), byte(len(body))}, body...)); err != nil {
		t.Fatal(err)
	}
}

func TestDamageAndCutsLeaveNothingBehind(t *testing.T) {
	for name, c := range map[string]struct {
		body []byte
		want error
	}{
		"cut":       {[]byte("hel"), io.ErrUnexpectedEOF},
		"no sum":    {[]byte("hello"), io.ErrUnexpectedEOF},
		"wrong sum": {append([]byte("hello"), make([]byte, sha256.Size)...), transfer.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			conn, done := receiver(t, dir, transfer.Limits{})
			announce(t, conn, "x", 5)
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			go func() { // the verdict must not block the receiver
				_, _ = conn.Write(c.body)
				if !errors.Is(c.want, transfer.ErrCorrupt) {
					_ = conn.Close()
				}
			}()
			if errors.Is(c.want, transfer.ErrCorrupt) {
				go func() { _, _ = io.Copy(io.Discard, conn) }()
			}
			if o := <-done; !errors.Is(o.err, c.want) {
				t.Errorf("got %v, want %v", o.err, c.want)
			}
			if es := entries(t, dir); len(es) != 0 {
				t.Errorf("left behind: %q", es)
			}
		})
	}
}

func TestReceiverMayRefuse(t *testing.T) {
	for want, l := range map[string]transfer.Limits{
		"at most 3 are taken": {MaxSize: 3},
		"no files from you":   {Wanted: func(string, int64) error { return errors.New("no files from you") }},
	} {
		conn, done := receiver(t, t.TempDir(), l)
		_, err := transfer.Send(conn, "x", 5, strings.NewReader("hello"), nil)
		if !errors.Is(err, transfer.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("sender got %v", err)
		}
		if o := <-done; !errors.Is(o.err, transfer.ErrRefused) {
			t.Errorf("receiver got %v", o.err)
		}
	}
}

// fault: H3
func TestSourceThatShrinksIsDetected(t *testing.T) {
	conn, done := receiver(t, t.TempDir(), transfer.Limits{})
	_, err := transfer.Send(conn, "x", 10, strings.NewReader("short"), nil)
	if err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("sender got %v", err)
	}
	_ = conn.Close()
	if o := <-done; o.err == nil {
		t.Error("the receiver kept it")
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 6, 0x93, 1, 0xa1, 'x', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		file, err := transfer.Receive(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}, root, transfer.Limits{MaxSize: 1 << 20}, nil)
		if err == nil && transfer.CheckName(file.Sent) != nil {
			t.Fatalf("kept %q", file.Sent)
		}
	})
}

func Example() {
	dir, _ := os.MkdirTemp("", "transfer")
	defer os.RemoveAll(dir)
	folder, _ := os.OpenRoot(dir)
	defer folder.Close()
	a, b := net.Pipe()
	received := make(chan transfer.File)
	go func() {
		f, _ := transfer.Receive(b, folder, transfer.Limits{}, nil)
		received <- f
	}()
	_, err := transfer.Send(a, "hello.txt", 5, strings.NewReader("hello"), nil)
	f := <-received
	fmt.Println(f.Name, f.Size, err)
	// Output: hello.txt 5 <nil>
}
