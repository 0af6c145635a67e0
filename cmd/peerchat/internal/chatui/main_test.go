package chatui

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// programEnv makes this test binary a chat on the terminal, with contacts that
// are kept in memory.
const programEnv = "CHATUI_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(program())
	}
	goleak.VerifyTestMain(m,
		// teatest waits for an interrupt for ever
		goleak.IgnoreAnyFunction("github.com/charmbracelet/x/exp/teatest/v2.NewTestModel.func2"),
		goleak.IgnoreAnyFunction("os/signal.signal_recv"), goleak.IgnoreAnyFunction("os/signal.loop"))
}

// program runs the chat as peerchat does, and ends with 143 at SIGTERM.
func program() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	b := company()
	b.answer = func(text string) string {
		if after, ok := strings.CutPrefix(text, "ping"); ok {
			return "pong" + after
		}
		if text == "hostile" {
			return "\x1b[2J\x1b]0;owned\a\u202egpj.exe " + strings.Repeat("x", 10<<20)
		}
		return ""
	}
	err := Run(ctx, b, Config{Location: time.UTC})
	switch {
	case ctx.Err() != nil:
		fmt.Println("stopped")
		return 128 + int(syscall.SIGTERM)
	case err != nil:
		fmt.Println(err)
		return 1
	}
	fmt.Println("left")
	return 0
}

// company is some contacts and what was said.
func company() *memory {
	b := newMemory(
		Contact{ID: "a11ce", Name: "alice", Presence: Online, Detail: "direct, 12 ms"},
		Contact{ID: "b0b", Name: "bob", Presence: Away},
		Contact{ID: "ca201", Name: "carol", Presence: Online, Detail: "relay, 48 ms"},
		Contact{ID: "da7e", Name: "dave"},
	)
	for _, m := range []Message{
		{Contact: "a11ce", Text: "did you get the photos?", Time: noon.Add(-20 * time.Hour)},
		{Contact: "a11ce", Mine: true, Mark: Delivered, Text: "yes, all 214 of them — thank you!"},
		{Contact: "a11ce", Text: "the one on the pier is my favourite; the light was only there for a minute, and then the fog came in from the sea"},
		{Contact: "a11ce", Text: "here is how to run it:\n\n\tcd photos\n\tmake gallery"},
		{Contact: "a11ce", Mine: true, Mark: Sent, Text: "running it now"},
		{Contact: "b0b", Mine: true, Mark: Delivered, Text: "lunch tomorrow?"},
		{Contact: "b0b", Mine: true, Mark: Queued, Text: "I booked the table by the window"},
		{Contact: "ca201", Text: "the build is green again"},
		{Contact: "ca201", Text: "and so is the soak test"},
	} {
		b.put(m)
	}
	return b
}
