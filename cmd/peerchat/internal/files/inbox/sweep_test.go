package inbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// abandon leaves an incomplete file that nobody has touched for so long.
func abandon(t *testing.T, f *Folder, dir, name string, age time.Duration) (part string) {
	t.Helper()
	content := random(200_000)
	p := resume(t, f, name, len(content))
	feed(t, p, content, 65536, 65536)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	touch(t, dir, p.part, age)
	touch(t, dir, p.stateName(), age)
	return p.part
}

func touch(t *testing.T, dir, name string, age time.Duration) {
	t.Helper()
	then := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(dir, name), then, then); err != nil {
		t.Fatal(err)
	}
}

func swept(t *testing.T, f *Folder, r Rule) (names []string) {
	t.Helper()
	gone, err := f.Sweep(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range gone {
		if a.Size != 65536 || a.Touched.IsZero() {
			t.Errorf("%+v was given up", a)
		}
		names = append(names, a.Name)
	}
	return names
}

const day = 24 * time.Hour

func TestOnlyWhatIsAbandonedIsSwept(t *testing.T) {
	f, dir := folder(t)
	old := abandon(t, f, dir, "old", 31*day)
	deep := abandon(t, f, dir, "a/b/deep", 32*day)
	young := abandon(t, f, dir, "young", 29*day)
	half := abandon(t, f, dir, "half", 31*day)
	touch(t, dir, half+stateSuffix, time.Minute) // somebody goes on with it
	ahead := abandon(t, f, dir, "ahead", -day)   // the clock was wrong
	simple := partPrefix + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	os.WriteFile(filepath.Join(dir, simple), make([]byte, 65536), 0o600)
	touch(t, dir, simple, 40*day)
	others := []string{"mine", partPrefix + "notes", partPrefix + "0123456789abcdef0123456789abcdeg", ".peerlink"}
	for _, name := range others {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		touch(t, dir, name, 99*day)
	}
	if got := swept(t, f, Rule{}); !slices.Equal(got, []string{simple, deep, old}) {
		t.Errorf("swept was %q", got)
	}
	want := append([]string{"a", young, young + stateSuffix, half, half + stateSuffix, ahead, ahead + stateSuffix}, others...)
	slices.Sort(want)
	if got := entries(t, dir); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if p := resume(t, f, "young", 200_000); p.Len() != 65536 {
		t.Errorf("a young one goes on at %d", p.Len())
	}
}

func TestNoMoreThanSoManyAreLeft(t *testing.T) {
	f, dir := folder(t)
	var parts []string
	for i := range 6 {
		parts = append(parts, abandon(t, f, dir, fmt.Sprint(i), time.Duration(10-2*i)*12*time.Hour)) // 5 days … none
	}
	if got := swept(t, f, Rule{Most: 4}); !slices.Equal(got, parts[:2]) {
		t.Errorf("of six, four may be left, and swept was %q", got)
	}
	if got := swept(t, f, Rule{Most: 1}); !slices.Equal(got, parts[2:5]) {
		t.Errorf("swept was %q", got)
	}
	if got := swept(t, f, Rule{Most: -1}); got != nil {
		t.Errorf("swept was %q", got)
	}
	if got := swept(t, f, Rule{Age: 1}); !slices.Equal(got, parts[5:]) {
		t.Errorf("swept was %q", got)
	}
	if got := entries(t, dir); got != nil {
		t.Errorf("there are %q", got)
	}
}

func TestWhatIsReceivedIsNotSwept(t *testing.T) {
	f, dir := folder(t)
	abandon(t, f, dir, "x", 99*day)
	p := resume(t, f, "x", 200_000)
	touch(t, dir, p.part, 99*day)
	touch(t, dir, p.stateName(), 99*day)
	if got := swept(t, f, Rule{}); got != nil {
		t.Errorf("swept was %q", got)
	}
	feed(t, p, random(200_000), 200_000, 65536)
	if _, err := p.Keep(Meta{}); err != nil {
		t.Error(err)
	}
}

func TestSweepEndsWithItsContext(t *testing.T) {
	f, dir := folder(t)
	abandon(t, f, dir, "x", 99*day)
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if gone, err := f.Sweep(ctx, Rule{}); !errors.Is(err, cause) || gone != nil {
		t.Errorf("%v, %v", gone, err)
	}
}

// A link into another folder, or in a circle, leads the sweep nowhere.
func TestSweepFollowsNoLinks(t *testing.T) {
	f, dir := folder(t)
	outside := t.TempDir()
	name := partPrefix + "0123456789abcdef0123456789abcdef"
	os.WriteFile(filepath.Join(outside, name), nil, 0o600)
	touch(t, outside, name, 99*day)
	os.Symlink(outside, filepath.Join(dir, "out"))
	os.Symlink(".", filepath.Join(dir, "circle"))
	os.Symlink(filepath.Join(outside, name), filepath.Join(dir, name))
	if got := swept(t, f, Rule{Age: 1}); got != nil {
		t.Errorf("swept was %q", got)
	}
	if got := entries(t, outside); len(got) != 1 {
		t.Error("it was removed outside")
	}
}
