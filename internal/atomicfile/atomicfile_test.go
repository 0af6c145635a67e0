package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// alone checks that a folder has one file, with that text and mode.
func alone(t *testing.T, path, text string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != text {
		t.Errorf("%q, %v, want %q", b, err, text)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

func TestAFileIsMadeAndReplacedForThisUserOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"first", "", "third and longer"} {
		if err := Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		alone(t, path, text)
		if st, err := os.Lstat(path); err != nil || runtime.GOOS != "windows" && st.Mode() != Mode {
			t.Errorf("%v, %v, want mode %v", st, err, Mode)
		}
		if err := os.Chmod(path, 0o644); err != nil { // the next one must not keep that
			t.Fatal(err)
		}
	}
}

func TestAFailureLeavesTheOldFileAndNothingBesideIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	// A folder in the place of a file: all steps but the renaming succeed.
	if err := os.Rename(path, path+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"x", filepath.Join(path, "old")); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("new")); err == nil {
		t.Error("a folder was replaced")
	}
	alone(t, filepath.Join(path, "old"), "old")
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := Write(filepath.Join(path, "none", "f"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestTheFolderIsSyncedOnceTheNewFileStands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	full := errors.New("disk on fire")
	synced := 0
	err := write(path, []byte("new"), func(folder string) error {
		synced++
		if folder != filepath.Dir(path) {
			t.Errorf("%s was synced", folder)
		}
		alone(t, path, "new")
		return full
	})
	if err != full || synced != 1 {
		t.Errorf("%v after %d, want %v after one", err, synced, full)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
	if err := syncFolder(path + "x"); runtime.GOOS != "windows" && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there was synced: %v", err)
	}
}

func TestALinkIsReplacedNotFollowed(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "f")
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(elsewhere, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if err := Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	alone(t, path, "new")
	alone(t, elsewhere, "other")
}

func TestOneOfConcurrentWritesStandsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := Write(path, bytes.Repeat([]byte{'a' + byte(i)}, 1<<16)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 1<<16 || bytes.Count(b, b[:1]) != len(b) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
