package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var more = regexp.MustCompile(`msg="(\d+) more of this kind" kind="?([^"\n]*)"?`)

// told are the numbers of what was left out of each kind.
func told(t *testing.T, log string) map[string]int {
	t.Helper()
	left := map[string]int{}
	for _, m := range more.FindAllStringSubmatch(log, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		left[m[2]] += n
	}
	return left
}

// at handles a record of a certain time.
func at(t *testing.T, h slog.Handler, now time.Time, msg string, args ...any) {
	t.Helper()
	r := slog.NewRecord(now, slog.LevelInfo, msg, 0)
	r.Add(args...)
	if err := h.Handle(context.Background(), r); err != nil {
		t.Fatal(err)
	}
}

// 100 devices have 360 records each logged within an hour: a few of each are, and the
// others are counted.
//
// case: S13
func TestADeviceCausesFewRecordsAndTheOthersAreCounted(t *testing.T) {
	var out bytes.Buffer
	h := NewHandler(slog.NewTextHandler(&out, nil))
	now := time.Unix(1_000_000_000, 0)
	const kind, devices, each = "forward: refused", 100, 360
	for i := range each {
		for d := range devices {
			at(t, h, now, kind, "device", d, "err", i)
		}
		if i == 1 {
			at(t, h, now, "something else", "device", 1)
		}
		now = now.Add(10 * time.Second)
	}
	h.Flush()
	logged := strings.Count(out.String(), "msg=\""+kind)
	if most := 200 + 2*3600; logged > most || logged < most/2 {
		t.Errorf("%d records were logged, want about %d", logged, most)
	}
	if left := told(t, out.String()); left[kind] != devices*each-logged || len(left) != 1 {
		t.Errorf("%d records were logged and %v left out, of %d", logged, left, devices*each)
	}
	if !strings.Contains(out.String(), "something else") {
		t.Error("a record of another kind was left out")
	}
	if n := out.Len(); n > 1<<20 {
		t.Errorf("%d bytes were logged in an hour", n)
	}
}

// case: S13
func TestOneDeviceCausesNoneOfAnothersToBeLeftOut(t *testing.T) {
	var out bytes.Buffer
	h := NewHandler(slog.NewTextHandler(&out, nil))
	bad := h.WithAttrs([]slog.Attr{slog.String("from", "bad")}).WithGroup("g")
	now := time.Unix(1_000_000_000, 0)
	for range 10_000 {
		at(t, bad, now, "list refused")
	}
	at(t, h, now, "list refused", "from", "good")
	if n := strings.Count(out.String(), "from=bad"); n != 10 || !strings.Contains(out.String(), "from=good") {
		t.Errorf("%d records of one that floods:\n%s", n, out.String())
	}
	if len(told(t, out.String())) > 0 {
		t.Error("what is left out was told at once")
	}
	at(t, h, now.Add(toldEvery), "nothing to do with it") // and it need not go on
	if left := told(t, out.String()); left["list refused"] != 9990 {
		t.Errorf("told are %v", left)
	}
}

// Whatever records say, and however many kinds there are.
//
// case: S13
func TestRecordsAreBoundedInAll(t *testing.T) {
	var out bytes.Buffer
	h := NewHandler(slog.NewTextHandler(&out, nil))
	now := time.Unix(1_000_000_000, 0)
	const n = 20_000
	for i := range n {
		at(t, h, now, fmt.Sprint("kind ", i), "peer", i)
	}
	h.Flush()
	left := told(t, out.String())
	if logged := strings.Count(out.String(), "msg=\"kind "); logged != 1000 || len(left) != maxKinds+1 || left[others] != n-1000-maxKinds {
		t.Errorf("%d records were logged, and %d kinds left out, of others %d", logged, len(left), left[others])
	}
}

func TestWhatIsNotEnabledIsNotCounted(t *testing.T) {
	h := NewHandler(slog.NewTextHandler(t.Output(), nil))
	if h.Enabled(t.Context(), slog.LevelDebug) || !h.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("the levels are not those of the handler behind")
	}
}

// case: S13
func TestALogFileIsPutAsideWhenItIsLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("o"), maxFile-10), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := append(bytes.Repeat([]byte("x"), 1<<20-1), '\n')
	for i := range 25 {
		line[0] = byte('a' + i)
		if n, err := f.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var first []byte // of each file, the newest first
	for _, suffix := range []string{"", ".1", ".2", ".3", ".4"} {
		b, err := os.ReadFile(path + suffix)
		if suffix == ".4" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a fourth old file: %v", err)
			}
			break
		}
		if st, err := os.Stat(path + suffix); err != nil || st.Mode().Perm() != 0o600 || st.Size() > maxFile {
			t.Errorf("%s: %v, %v", suffix, st, err)
		}
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", suffix, len(b), err)
		}
		first = append(first, b[0])
	}
	if string(first) != "yuqm" { // the 25th line, and before it three times four
		t.Errorf("the files begin with %q", first)
	}
	if f, err = Open(path); err != nil { // and it goes on there
		t.Fatal(err)
	}
	_, _ = f.Write([]byte("more"))
	_ = f.Close()
	if b, _ := os.ReadFile(path); !bytes.HasPrefix(b, []byte("y")) || !bytes.HasSuffix(b, []byte("\nmore")) {
		t.Error("what was there when it was opened is gone")
	}
}

// Where nothing can be put aside the log is bounded all the same.
//
// case: S13
func TestALogFileThatCannotBePutAsideBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.MkdirAll(path+".1/full", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+".2/full", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+".3/full", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 10 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Size() > maxFile || st.Size() < 1<<20 {
		t.Errorf("%v, %v", st, err)
	}
}

// case: S13
func TestDevicesLeaveRoomForThisOnesRecords(t *testing.T) {
	var out bytes.Buffer
	h := NewHandler(slog.NewTextHandler(&out, nil))
	now := time.Unix(1_000_000_000, 0)
	for d := range 10_000 {
		at(t, h, now, fmt.Sprint("kind ", d%50), "device", d)
	}
	at(t, h, now, "the network is lost")
	if !strings.Contains(out.String(), "the network is lost") {
		t.Error("what this device says was left out for what others cause")
	}
}
