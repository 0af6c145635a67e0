package parcel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// looking is a consent of a person that looks at each offer and says yes.
func looking(asked *atomic.Int64, seen func(Listing)) Config {
	return Config{Consent: func(ctx context.Context, o Offer) error {
		asked.Add(1)
		l, err := o.Look(ctx)
		if err == nil && seen != nil {
			seen(l)
		}
		return err
	}}
}

// again is a sender made by hand that comes back to the receiver of h.
func (h *hand) again() *hand {
	h.t.Helper()
	c, _ := h.r.open(h.t.Context(), Scheme)
	h.t.Cleanup(func() { c.Close() })
	return &hand{h.t, newWire(c), h.r}
}

// lists offers entries, tells them when it is asked to, and waits for a yes. told
// is false where an answer comes without.
func (h *hand) lists(o offer, entries ...entry) (told bool) {
	h.t.Helper()
	o.lists = true
	h.send(kindOffer, o.elems()...)
	k, n, err := h.w.next()
	if err == nil && k == kindList {
		told, err = true, h.w.fields(n, 0).done()
		for i, e := range entries {
			e.index = uint64(i)
			h.send(kindEntry, e.elems()...)
		}
		h.send(kindEnd)
		if err == nil {
			k, n, err = h.w.next()
		}
	}
	f := h.w.fields(n, 2)
	if yes, why := f.Bool(), f.String(maxReason); err != nil || k != kindAnswer || !yes {
		h.t.Fatalf("kind %d, yes: %v %q, %v", k, yes, why, err)
	}
	return told
}

// gives sends an entry of one piece, and returns why it failed; "" if it was kept.
func (h *hand) gives(e entry, content []byte) (why string) {
	h.t.Helper()
	h.send(kindEntry, e.elems()...)
	for {
		k, n, err := h.w.next()
		if err != nil {
			h.t.Fatal(err)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(h.w.br, body); err != nil {
			h.t.Fatal(err)
		}
		switch k {
		case kindWant:
			h.send(kindStart, e.index, uint64(0))
			h.piece(content, sumOf(content))
		case kindCompare:
			sum := sumOf(content)
			h.send(kindDigest, e.index, sum[:])
		case kindFailed:
			return string(body)
		case kindKept:
			return ""
		default:
			h.t.Fatalf("kind %d", k)
		}
	}
}

var (
	photo  = entry{path: []string{"photo.jpg"}, size: 5}
	photos = offer{id: [16]byte{2}, entries: 9, bytes: 100, names: []string{"photo.jpg"}}
)

func numberedAs(e entry, index int) entry {
	e.index = uint64(index)
	return e
}

// case: S2
func TestOnlyWhatWasShownIsTaken(t *testing.T) {
	var asked atomic.Int64
	h := byHand(t, looking(&asked, nil))
	h.lists(photos, photo)
	for i, e := range []entry{
		{path: []string{".bashrc"}, size: 5},
		{path: []string{"photo.jpg"}, size: 5, executable: true},
		{path: []string{"photo.jpg"}, size: 4},
		{path: []string{"photo.jpg"}, folder: true},
		{path: []string{"photo.jpg", "x"}, size: 5},
		{path: []string{"PHOTO.jpg"}, size: 5},
	} {
		if why := h.gives(numberedAs(e, i), []byte("hello")[:e.size]); !strings.Contains(why, errNotApproved.Error()) {
			t.Errorf("%+v: %q", e, why)
		}
	}
	holds(t, h.r.dir, nil)
	if why := h.gives(numberedAs(photo, 6), []byte("hello")); why != "" {
		t.Error(why)
	}
	if why := h.gives(numberedAs(photo, 7), []byte("olleh")); !strings.Contains(why, errUsed.Error()) {
		t.Errorf("twice: %q", why)
	}
	if why := h.gives(numberedAs(photo, 8), []byte("hello")); why != "" {
		t.Errorf("what is here: %q", why)
	}
	h.send(kindEnd)
	h.r.wg.Wait()
	holds(t, h.r.dir, map[string][]byte{"photo.jpg": []byte("hello")})
}

// case: S2
// An approval is good for its transfer until that is complete, and for a day.
func TestAnApprovalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		h := byHand(t, looking(&asked, nil))
		if !h.lists(photos, photo) {
			t.Error("the first offer is not looked at")
		}
		h.w.conn.Close() // cut
		h.r.wg.Wait()
		time.Sleep(approvedFor - time.Second)
		h = h.again()
		if h.lists(photos, photo) {
			t.Error("who comes back after a cut is asked about again")
		}
		h.w.conn.Close()
		h.r.wg.Wait()
		time.Sleep(time.Second)
		h = h.again()
		if !h.lists(photos, photo) {
			t.Error("use has renewed the approval")
		}
		if why := h.gives(photo, []byte("hello")); why != "" {
			t.Error(why)
		}
		h.send(kindEnd)
		h.r.wg.Wait()
		h = h.again()
		if !h.lists(photos, photo) {
			t.Error("the same offer is taken after its end")
		}
		other := photos
		other.names = []string{"other.jpg"}
		h.w.conn.Close()
		if !h.again().lists(other, photo) {
			t.Error("another offer is taken for one that was approved")
		}
		if n := asked.Load(); n != 4 {
			t.Errorf("%d questions", n)
		}
		h.r.stop()
	})
}

// case: S2
// Two sessions of one sender that are both at the end of the same entry fill its
// place once.
func TestAPlaceIsFilledOnce(t *testing.T) {
	a := newApproval(offer{lists: true, entries: 1, bytes: 5})
	if err := a.list(photo); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.room(photo), a.use(photo)); err != nil {
		t.Error(err)
	}
	if !errors.Is(a.use(photo), errUsed) || !errors.Is(a.room(photo), errUsed) {
		t.Error("it is filled again")
	}
	a.unuse(photo) // it could not be kept
	if err := a.use(photo); err != nil {
		t.Error(err)
	}
}

// case: S2
func TestAQuestionTellsWhatIsHiddenAndWhatRuns(t *testing.T) {
	var asked atomic.Int64
	var got Listing
	h := byHand(t, looking(&asked, func(l Listing) { got = l }))
	h.lists(
		offer{id: [16]byte{3}, entries: 20, bytes: 1000, names: []string{"harmless.txt"}},
		entry{path: []string{"d"}, folder: true},
		entry{path: []string{"d", ".ssh"}, folder: true},
		entry{path: []string{"d", ".ssh", "authorized_keys"}, size: 5},
		entry{path: []string{"d", "\x1b[2Jrun"}, size: 5, executable: true},
		entry{path: []string{".a"}, executable: true},
		entry{path: []string{".b"}},
		entry{path: []string{"..", ".c"}}, // is refused for its name
	)
	want := Listing{
		Names: []string{"d", ".a", ".b"}, Entries: 7, Bytes: 10, Whole: true,
		Hidden:   Marked{4, []string{"d/.ssh", "d/.ssh/authorized_keys", ".a"}},
		Programs: Marked{2, []string{"d/%1B[2Jrun", ".a"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the question tells %+v, want %+v", got, want)
	}
	if o := h.r.of(Offered); len(o) != 1 || !slices.Equal(o[0].Offer.Names, want.Names) {
		t.Errorf("told is %+v", o)
	}
}

// case: S2
// A sender of an older version tells the names at the top alone. What they cannot
// stand for is refused.
func TestAnOlderSenderIsBoundToTheNamesThatWereShown(t *testing.T) {
	var asked atomic.Int64
	var got Listing
	cfg := looking(&asked, func(l Listing) { got = l })
	h := byHand(t, cfg)
	offered := func(names ...string) {
		h.send(kindOffer, offer{id: [16]byte{4}, entries: 9, bytes: 100, names: names}.elems()...)
		h.expect(kindAnswer)
	}
	offered("d", "x")
	if got.Whole || !slices.Equal(got.Names, []string{"d", "x"}) {
		t.Errorf("the question tells %+v", got)
	}
	for i, c := range []struct {
		entry
		want string
	}{
		{entry{path: []string{"y"}, size: 5}, errNotApproved.Error()},
		{entry{path: []string{"d", ".z"}, size: 5}, "it is hidden"},
		{entry{path: []string{"x"}, size: 5, executable: true}, "it is a program"},
		{entry{path: []string{"d"}, folder: true}, ""},
		{entry{path: []string{"d", "z"}, size: 5}, ""},
		{entry{path: []string{"x"}, size: 5}, ""},
	} {
		if why := h.gives(numberedAs(c.entry, i), []byte("hello")); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%+v: %q, want %q", c.entry, why, c.want)
		}
	}
	h.w.conn.Close()
	h = byHand(t, cfg)
	h.send(kindOffer, offer{id: [16]byte{4}, entries: 1, bytes: 5, names: []string{"x"}}.elems()...)
	h.expect(kindAnswer)
	if why := h.gives(entry{path: []string{"x", "y"}, size: 5}, []byte("hello")); !strings.Contains(why, errNotApproved.Error()) {
		t.Errorf("below a single file: %q", why)
	}
}

// case: S2
// On one channel after another, no more comes below a name than the offer had.
func TestAnOlderSenderThatComesBackBringsNoMoreThanWasOffered(t *testing.T) {
	var asked atomic.Int64
	h := byHand(t, looking(&asked, nil))
	came := func(h *hand, e entry) string {
		h.send(kindOffer, offer{id: [16]byte{7}, entries: 3, bytes: 10, names: []string{"d"}}.elems()...)
		h.expect(kindAnswer)
		why := h.gives(e, []byte("hello")[:e.size])
		h.w.conn.Close()
		h.r.wg.Wait()
		return why
	}
	for i, c := range []struct {
		entry
		want string
	}{
		{entry{path: []string{"d", "1"}, size: 5}, ""},
		{entry{path: []string{"d", "2"}, size: 4}, ""},
		{entry{path: []string{"d", "3"}, size: 2}, errNotApproved.Error()},
		{entry{path: []string{"d", "4"}, folder: true}, ""},
		{entry{path: []string{"d", "4"}, folder: true}, ""},
		{entry{path: []string{"d", "5"}, folder: true}, errNotApproved.Error()},
		{entry{path: []string{"d", "1"}, size: 5}, ""}, // it is here
	} {
		if i > 0 {
			h = h.again()
		}
		if why := came(h, c.entry); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%+v: %q, want %q", c.entry, why, c.want)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("%d questions", asked.Load())
	}
	if there := listing(t, h.r.dir); len(there) != 4 {
		t.Errorf("there are %d", len(there))
	}
}

// case: S2
func TestSendersThatListWhatTheyDidNotOfferAreCutOff(t *testing.T) {
	for what, entries := range map[string][]entry{
		"entry 0 of 101 bytes":         {{path: []string{"x"}, size: 101}},
		"entry 1 of 60 bytes":          {{path: []string{"x"}, size: 60}, {index: 1, path: []string{"y"}, size: 60}},
		"entry 7 of 0 bytes":           {{index: 7, path: []string{"x"}}},
		"entry 0 of 0 bytes":           {{path: []string{}}},
		"nothing is listed of 2":       nil,
		"a frame of kind 13 after the": {{path: []string{"x"}}},
	} {
		t.Run(what, func(t *testing.T) {
			var asked atomic.Int64
			cfg := looking(&asked, nil)
			look := cfg.Consent
			cfg.Consent = func(ctx context.Context, o Offer) error { // nobody answers
				_ = look(ctx, o)
				<-ctx.Done()
				return ctx.Err()
			}
			h := byHand(t, cfg)
			h.send(kindOffer, offer{id: [16]byte{5}, entries: 2, bytes: 100, names: []string{"x"}, lists: true}.elems()...)
			h.expect(kindList)
			for _, e := range entries {
				_ = h.w.queue(kindEntry, e.elems()...)
			}
			_ = h.w.queue(kindEnd)
			_ = h.w.queue(kindEnd)
			go func() { _ = h.w.flush() }()
			h.refused(what)
		})
	}
	var asked atomic.Int64
	h := byHand(t, looking(&asked, nil))
	h.send(kindOffer, offer{id: [16]byte{5}, entries: maxListed + 1, names: []string{"x"}, lists: true}.elems()...)
	if why := h.expect(kindAnswer); !bytes.Contains(why, []byte("can be asked about")) {
		t.Errorf("too many to ask about: %q", why)
	}
}

// A yes that did not wait for the listing is none.
func TestAYesBeforeTheListingIsNone(t *testing.T) {
	h := byHand(t, Config{Consent: func(ctx context.Context, o Offer) error {
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = o.Look(over)
		return nil
	}})
	h.send(kindOffer, offer{id: [16]byte{6}, entries: 1, names: []string{"x"}, lists: true}.elems()...)
	h.expect(kindList)
	if why := h.expect(kindAnswer); !bytes.Contains(why, []byte("before all was told")) {
		t.Errorf("the sender is told %q", why)
	}
}

// A real sender tells what it has.
func TestASenderTellsItsEntriesWhenAsked(t *testing.T) {
	content := map[string][]byte{"tree/a": random(200_000), "tree/.b": []byte("b"), "tree/c": {}}
	dir := files(t, content)
	var asked atomic.Int64
	var got Listing
	r := newReceiver(t, looking(&asked, func(l Listing) { got = l }))
	if _, err := send(t, r, filepath.Join(dir, "tree")); err != nil {
		t.Fatal(err)
	}
	if got.Entries != 4 || got.Bytes != 200_001 || got.Hidden.N != 1 || !slices.Equal(got.Hidden.Paths, []string{"tree/.b"}) || got.Programs.N != 0 {
		t.Errorf("told is %+v", got)
	}
	holds(t, r.dir, content)
	if _, err := (Offer{}).Look(t.Context()); err == nil {
		t.Error("an offer of nobody is looked at")
	}
}

// A receiver that asks a sender for its entries out of turn is left.
func TestEntriesAreToldOnceAndBeforeAnAnswer(t *testing.T) {
	dir := files(t, map[string][]byte{"x": []byte("hello")})
	for _, first := range [][]any{{kindList}, {kindAnswer, true, ""}} {
		open := func(context.Context, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				w := newWire(b)
				_, n, _ := w.next()
				_ = w.fields(n, 9).done()
				go func() { _, _ = io.Copy(io.Discard, b) }()
				_ = w.send(first[0].(kind), first[1:]...)
				_ = w.send(kindList)
			}()
			return a, nil
		}
		_, err := Send(t.Context(), SendConfig{Open: open}, filepath.Join(dir, "x"))
		if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "asked for out of turn") {
			t.Errorf("after %v: %v", first[0], err)
		}
	}
}
