package parcel

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fault: H3
// The folder changes between the count and the sending: what is new is not sent,
// what is gone or another thing is told, and all others arrive.
func TestFolderThatChangesIsSentAsItWasCounted(t *testing.T) {
	dir := files(t, map[string][]byte{"tree/a": []byte("a"), "tree/gone": []byte("gone"), "tree/link": []byte("link"), "tree/sub/b": []byte("b")})
	outside := files(t, map[string][]byte{"secret": []byte("secret")})
	tree := filepath.Join(dir, "tree")
	r := newReceiver(t, Config{})
	var told []string
	sum, err := Send(t.Context(), SendConfig{Open: r.open, Watch: func(e Event) {
		switch e.Kind {
		case Offered: // all has been counted
			os.Remove(filepath.Join(tree, "gone"))
			os.Remove(filepath.Join(tree, "link"))
			os.Symlink(filepath.Join(outside, "secret"), filepath.Join(tree, "link"))
			os.RemoveAll(filepath.Join(tree, "sub"))
			os.Symlink(outside, filepath.Join(tree, "sub"))
		case Skipped, Failed:
			told = append(told, e.Path+": "+e.Err.Error())
		}
	}}, tree)
	slices.Sort(told)
	if err == nil || sum.Kept != 2 || !slices.Equal(told, []string{"tree/link: symbolic links are not sent", "tree/sub: symbolic links are not sent"}) {
		t.Errorf("%+v, %v, told was %q", sum, err, told)
	}
	r.stop()
	holds(t, r.dir, map[string][]byte{"tree/a": []byte("a")})
}

// More than was offered is not sent: the receiver agreed to so much.
func TestWhatComesAfterTheOfferIsNotSent(t *testing.T) {
	dir := files(t, map[string][]byte{"tree/a": []byte("aaaaa")})
	tree := filepath.Join(dir, "tree")
	r := newReceiver(t, Config{})
	sum, err := Send(t.Context(), SendConfig{Open: r.open, Watch: func(e Event) {
		if e.Kind == Offered {
			os.WriteFile(filepath.Join(tree, "b"), []byte("bbbbb"), 0o644)
			os.WriteFile(filepath.Join(tree, "c"), []byte("ccccc"), 0o644)
		}
	}}, tree)
	if err == nil || !strings.Contains(err.Error(), "it changed while it was sent") || sum.Kept != 2 || sum.Failed != 2 {
		t.Errorf("%+v, %v", sum, err)
	}
	r.stop()
	got := listing(t, r.dir)
	if delete(got, "tree"); len(got) != 1 { // which of the three is the disk's order
		t.Errorf("there are %q", slices.Collect(maps.Keys(got)))
	}
}

// A link that the user names is followed, one that is found is not.
func TestOnlyNamedLinksAreFollowed(t *testing.T) {
	dir := files(t, map[string][]byte{"real/a": []byte("a"), "file": []byte("file")})
	os.Symlink("real", filepath.Join(dir, "folder"))
	os.Symlink("file", filepath.Join(dir, "other name"))
	os.Symlink("..", filepath.Join(dir, "real", "circle"))
	r := newReceiver(t, Config{})
	sum, err := send(t, r, filepath.Join(dir, "folder"), filepath.Join(dir, "other name"))
	if err == nil || sum.Skipped != 1 || !strings.Contains(err.Error(), `"folder/circle": symbolic links are not sent`) {
		t.Errorf("%+v, %v", sum, err)
	}
	r.stop()
	holds(t, r.dir, map[string][]byte{"folder/a": []byte("a"), "other name": []byte("file")})
}

// Of a file's rights only "its owner may run it" comes along, and of times only
// a file's last change: a sender decides nothing else about the receiver's disk.
func TestOnlyTheExecutableBitAndTheTimeComeAlong(t *testing.T) {
	modes := map[string]os.FileMode{"plain": 0o600, "wide": 0o666, "run": 0o755, "setuid": 0o755 | os.ModeSetuid | os.ModeSetgid | os.ModeSticky, "others run": 0o611}
	content := map[string][]byte{}
	for name := range modes {
		content["tree/"+name] = []byte(name)
	}
	dir := files(t, content)
	then := time.Date(2003, 4, 5, 6, 7, 8, 0, time.UTC)
	for name, m := range modes {
		path := filepath.Join(dir, "tree", name)
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(path, then, then)
	}
	os.Chtimes(filepath.Join(dir, "tree"), then, then)
	r := newReceiver(t, Config{})
	usual := filepath.Join(r.dir, "usual")
	os.WriteFile(usual, nil, 0o666)
	st, err := os.Stat(usual)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(usual)
	if _, err := send(t, r, filepath.Join(dir, "tree")); err != nil {
		t.Fatal(err)
	}
	for name, m := range modes {
		want := st.Mode()
		if m&0o100 != 0 {
			want |= want & 0o444 >> 2 // for whoever may read it
		}
		got, err := os.Stat(filepath.Join(r.dir, "tree", name))
		if err != nil || got.Mode() != want || !got.ModTime().Equal(then) {
			t.Errorf("%s is %v of %v (%v), want %v", name, got.Mode(), got.ModTime(), err, want)
		}
	}
	if got, err := os.Stat(filepath.Join(r.dir, "tree")); err != nil || got.ModTime().Equal(then) {
		t.Errorf("the folder is of %v, %v", got.ModTime(), err)
	}
}
