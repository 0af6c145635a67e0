package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

const victimEnv = "PEERLINK_JOURNAL_VICTIM"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimEnv); path != "" {
		victim(path)
	}
	goleak.VerifyTestMain(m)
}

// victim writes until it is killed, and says which round is on disk.
func victim(path string) {
	j, _, err := Open(path, Config{MaxSize: 1 << 20}, func(string, []byte) {})
	for i := 0; err == nil; i++ {
		var es []Entry
		for k := range 8 {
			es = append(es, Entry{Key: fmt.Sprint("key", k), Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", 9000))})
		}
		if err = j.Write(es); err == nil {
			fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// read opens a journal and returns what it holds.
func read(t testing.TB, path string) (map[string]string, Damage) {
	t.Helper()
	got := map[string]string{}
	j, d, err := Open(path, Config{MaxSize: 1 << 20}, func(k string, v []byte) { got[k] = string(v) })
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return got, d
}

func write(t testing.TB, path string, es ...Entry) {
	t.Helper()
	j, _, err := Open(path, Config{MaxSize: 1 << 20}, func(string, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Write(es), j.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLastEntryOfAKeyCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "journal")
	write(t, path, Entry{"a", []byte("1")}, Entry{"b", []byte("2")}, Entry{"c", []byte{}})
	write(t, path, Entry{"a", []byte("3")}, Entry{Key: "b"}, Entry{Key: "never there"})
	got, d := read(t, path)
	if want := map[string]string{"a": "3", "c": ""}; !maps.Equal(got, want) || d.String() != "" {
		t.Errorf("%q, %v", got, d)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

// fault: I1, A3
func TestFileCutAtAnyByteKeepsWhatCameBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	var ends []int64
	for i := range 5 {
		write(t, path, Entry{fmt.Sprint("key", i), fmt.Append(nil, "value", i)})
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, st.Size())
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(magic); cut <= len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if int64(cut) >= e {
				want++
			}
		}
		got, d := read(t, path)
		if len(got) != want || d.String() != "" {
			t.Fatalf("cut at %d: %d entries, want %d; %v", cut, len(got), want, d)
		}
		write(t, path, Entry{"after", []byte("x")})
		if got, _ := read(t, path); len(got) != want+1 || got["after"] != "x" {
			t.Fatalf("cut at %d and written to: %q", cut, got)
		}
	}
}

// fault: I2, A5
func TestDamageCostsOnlyWhatWasDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	values := map[string]string{}
	var es []Entry
	for i := range 20 {
		k, v := fmt.Sprint("key", i), strings.Repeat(fmt.Sprint(i), 20)
		values[k] = v
		es = append(es, Entry{k, []byte(v)})
	}
	write(t, path, es...)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lengths := 0
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, d := read(t, path)
		for k, v := range got {
			if values[k] != v {
				t.Fatalf("byte %d: %q became %q", i, values[k], v)
			}
		}
		switch {
		case i < len(magic):
			if len(got) != 0 || d.Aside != path+".bad" || !strings.Contains(d.String(), path+".bad") {
				t.Fatalf("byte %d of the magic: %d entries, %v", i, len(got), d)
			}
		case len(got) < len(es)-1:
			lengths++ // a length was hit: what follows cannot be found
		case d.Lost == 0 && i < len(whole)-len(es[19].Value)-headLen-10: // the last one looks torn
			t.Fatalf("byte %d: nothing was told", i)
		case len(got) != len(es)-1:
			t.Fatalf("byte %d: %d entries, %v", i, len(got), d)
		}
	}
	if lengths > 4*len(es) {
		t.Errorf("%d of %d bytes cost more than one entry", lengths, len(whole))
	}
}

// fault: G1, I1
func TestKilledWriterLosesNothingItHadWritten(t *testing.T) {
	for round := range 10 {
		path := filepath.Join(t.TempDir(), "journal")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		said := -1
		s := bufio.NewScanner(out)
		for s.Scan() {
			if _, err := fmt.Sscan(s.Text(), &said); err != nil {
				t.Fatal(err)
			}
			if said == 7*(round+1) {
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		got, d := read(t, path)
		if len(got) != 8 || d.String() != "" {
			t.Fatalf("round %d: %d keys, %v", round, len(got), d)
		}
		for k, v := range got {
			var n int
			if _, err := fmt.Sscan(v, &n); err != nil || n < said || len(v) < 9000 {
				t.Errorf("round %d: %s is of round %d, %d had been written", round, k, n, said)
			}
		}
	}
}

// fault: J1
func TestFileStaysShortAndRefusesTooMuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := Open(path, Config{MaxSize: 1 << 20}, func(string, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 2000 {
		if err := j.Write([]Entry{{fmt.Sprint(i % 10), make([]byte, 10_000)}}); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Size() > 2*j.live+slack+20_000 {
			t.Fatalf("round %d: %d bytes for %d, %v", i, st.Size(), j.live, err)
		}
	}
	if j.Len() != 10 {
		t.Errorf("%d entries", j.Len())
	}
	for _, es := range [][]Entry{
		{{"x", make([]byte, MaxValueLen+1)}},
		{{strings.Repeat("x", MaxKeyLen+1), nil}},
	} {
		if err := j.Write(es); err == nil {
			t.Error("an entry that is too long was taken")
		}
	}
	var refused error
	for i := 0; refused == nil && i < 100; i++ {
		refused = j.Write([]Entry{{fmt.Sprint("more", i), make([]byte, MaxValueLen)}})
	}
	if refused == nil {
		t.Error("it holds more than it may")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if err := j.Write(nil); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestFolderAndLinkInItsPlaceAreRefused(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	for _, path := range []string{dir, link} {
		if _, _, err := Open(path, Config{}, func(string, []byte) {}); err == nil || !strings.Contains(err.Error(), "regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// fault: A1
func FuzzOpen(f *testing.F) {
	good := appendEntry([]byte(magic), Entry{"key", []byte("value")})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(magic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		before, _ := read(t, path)
		write(t, path, Entry{"k", []byte("v")})
		after, d := read(t, path)
		if before["k"] = "v"; !maps.Equal(before, after) || d.Aside != "" {
			t.Fatalf("%q became %q, %v", before, after, d)
		}
	})
}
