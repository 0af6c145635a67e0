package chatui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"peerlink/internal/life"
)

// Config says where and how to run. The zero value is the process's terminal.
type Config struct {
	In       io.Reader      // keys; nil for os.Stdin
	Out      io.Writer      // the screen; nil for os.Stdout
	Env      []string       // for TERM, NO_COLOR and COLORTERM, as os.Environ; nil for that
	Location *time.Location // of the times shown; nil for time.Local
	Open     string         // the ID of the contact to open first; empty for the first one
	Retry    time.Duration  // wait before Events is asked for again, doubled up to 30 s; 0 for 1 s
}

// Run shows the chat until the user leaves it, which is no error, or ctx ends,
// whose cause it then returns, or the terminal does, as a broken pipe does: then
// the error is that of writing to it. It restores the terminal, and leaves no goroutine
// behind but a read of In that nothing can interrupt. One process can run one
// chat on a terminal.
func Run(ctx context.Context, b Backend, cfg Config) error {
	if cfg.In == nil {
		cfg.In = os.Stdin
	}
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWork(ctx)
	defer w.end()
	cfg.Out = guard(cfg.Out, cancel)
	_, err := tea.NewProgram(newModel(b, cfg, w),
		tea.WithContext(ctx), tea.WithInput(cfg.In), tea.WithOutput(cfg.Out), tea.WithEnvironment(cfg.Env),
		tea.WithoutSignalHandler(), // signals are the caller's: they end ctx
	).Run()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return context.Cause(ctx)
	}
	return err
}

// guarded ends the chat when nothing can be drawn any more.
type guarded struct {
	io.Writer
	fail context.CancelCauseFunc
}

// Write passes p on.
func (g guarded) Write(p []byte) (int, error) {
	n, err := g.Writer.Write(p)
	if err != nil {
		g.fail(fmt.Errorf("the terminal is gone: %w", err))
	}
	return n, err
}

// guardedFile is a guarded terminal, which the UI asks for its size.
type guardedFile struct {
	*os.File
	guarded
}

// Write passes p on.
func (g guardedFile) Write(p []byte) (int, error) { return g.guarded.Write(p) }

func guard(w io.Writer, fail context.CancelCauseFunc) io.Writer {
	if f, ok := w.(*os.File); ok {
		return guardedFile{f, guarded{f, fail}}
	}
	return guarded{w, fail}
}

// callTimeout bounds one call of the Backend: it is on this machine, and a
// database that is busy gives up after five seconds.
const callTimeout = 10 * time.Second

// work is the calls of the Backend that are under way. The UI's library starts
// them but does not wait for them.
type work struct {
	base   context.Context // the life of the UI: calls outlast the function that starts them
	cancel context.CancelFunc
	life   life.Group // the calls
}

func newWork(ctx context.Context) *work {
	w := &work{}
	w.base, w.cancel = context.WithCancel(ctx)
	return w
}

// call makes f a command with a deadline.
func (w *work) call(f func(context.Context) tea.Msg) tea.Cmd {
	return w.wait(func(ctx context.Context) tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return f(ctx)
	})
}

// wait makes f a command that runs until the UI ends.
func (w *work) wait(f func(context.Context) tea.Msg) tea.Cmd {
	return func() tea.Msg {
		if !w.life.Enter() {
			return nil
		}
		defer w.life.Leave()
		return f(w.base)
	}
}

// end cancels what runs and waits for it.
func (w *work) end() {
	w.cancel()
	w.life.Close()
}
