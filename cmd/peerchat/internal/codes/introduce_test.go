package codes

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// introduce runs both sides and returns what each was told to keep.
func introduce(t *testing.T, inviter, joiner func(string) error) (atInviter, atJoiner error) {
	t.Helper()
	a, b := net.Pipe()
	errc := make(chan error, 1)
	go func() {
		errc <- Introduce(t.Context(), a, Inviter, "alice", inviter)
		_ = a.Close()
	}()
	atJoiner = Introduce(t.Context(), b, Joiner, "bob", joiner)
	_ = b.Close()
	return <-errc, atJoiner
}

func TestEachSideKeepsTheOthersName(t *testing.T) {
	var order []string
	note := func(who string) func(string) error {
		return func(name string) error { order = append(order, who+" keeps "+name); return nil }
	}
	a, b := introduce(t, note("alice"), note("bob"))
	if a != nil || b != nil {
		t.Fatal(a, b)
	}
	if got := strings.Join(order, ", "); got != "alice keeps bob, bob keeps alice" {
		t.Error(got)
	}
}

func TestASideThatCannotKeepSaysSo(t *testing.T) {
	full := errors.New("the disk is full")
	cannot := func(string) error { return full }
	kept := 0
	keep := func(string) error { kept++; return nil }
	if a, b := introduce(t, cannot, keep); !errors.Is(a, full) || b == nil || !strings.Contains(b.Error(), "the other device could not keep this one") || kept != 0 {
		t.Errorf("inviter: %v; joiner: %v, kept %d", a, b, kept)
	}
	if a, b := introduce(t, keep, cannot); !errors.Is(b, full) || a == nil || !strings.Contains(a.Error(), "the other device could not keep this one") || kept != 1 {
		t.Errorf("inviter: %v; joiner: %v, kept %d", a, b, kept)
	}
}

// fault: A1, B6
func TestWhatIsNoNameIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		said []byte
		want string
	}{
		"empty":          {frame(kindName), "malformed"},
		"too long":       {frame(kindName, []byte(strings.Repeat("x", maxName+1))...), "with 65 bytes where a name belongs"},
		"not UTF-8":      {frame(kindName, 0xff), "malformed"},
		"escapes":        {frame(kindName, []byte("bob\x1b[2J")...), "malformed"},
		"right to left":  {frame(kindName, []byte("bob\u202e")...), "malformed"},
		"giant":          {[]byte{0xff, 0xff, byte(kindName)}, "it announces 65535 bytes"},
		"something else": {frame(kindShare, 1), "one of kind 1"},
		"cut":            {[]byte{0, 9, byte(kindName), 'b'}, "unexpected EOF"},
		"nothing":        {nil, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			errc := make(chan error, 1)
			go func() {
				err := Introduce(t.Context(), a, Inviter, "alice", func(string) error { t.Error("was kept"); return nil })
				_ = a.Close()
				errc <- err
			}()
			_, _ = b.Write(c.said)
			_ = b.Close()
			if err := <-errc; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if err := Introduce(t.Context(), nil, Inviter, "", nil); err == nil {
		t.Error("a device without a name introduced itself")
	}
}

func TestAnIntroductionThatStallsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		began := time.Now()
		err := Introduce(t.Context(), a, Inviter, "alice", nil)
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took != introduceTimeout {
			t.Errorf("%v after %v", err, took)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, io.ErrNoProgress)
		defer cancel()
		if err := Introduce(ctx, a, Inviter, "alice", nil); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%v", err)
		}
	})
}
