package interop_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("INTEROP_RAFT"); dir != "" {
		if err := raftMember(dir, os.Getenv("INTEROP_NODES")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// member is a process that runs raftMember, and what it has printed.
type member struct {
	dir    string
	cmd    *exec.Cmd // nil once it has ended
	input  io.WriteCloser
	killed bool // by the test, so that its end is no failure

	id       string
	state    string // what it applied or restored last
	restored bool   // from a snapshot of the leader
	answer   string // to the last question
}

// raftEvent is a line that a member printed, or its end.
type raftEvent struct {
	of   *member
	line string
	end  error // io.EOF: with status 0
}

// cluster is the test's side of all members.
type cluster struct {
	ctx    context.Context
	nodes  string // of the DHT
	events chan raftEvent
	leader *member
	want   raftState // after all entries so far
}

// Three processes agree on a log by hashicorp/raft. The leader is killed, the
// others go on, and the killed one catches up by a snapshot when it comes back.
func TestRaft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, way{dht: true})
	c := &cluster{ctx: limited(t), nodes: strings.Join(w.options.Bootstrap, ","), events: make(chan raftEvent)}
	members := make([]*member, 3)
	var ids []string
	for i := range members {
		members[i] = &member{dir: t.TempDir()}
		c.start(t, members[i])
		ids = append(ids, members[i].id)
	}
	c.ask(t, members[0], "bootstrap "+strings.Join(ids, " "))
	c.write(t, 100)
	c.agree(t, members...)

	victim := c.leader
	victim.killed = true
	if err := victim.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.until(t, func() bool { return victim.cmd == nil })
	left := slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == victim })
	c.write(t, 100)
	c.agree(t, left...)
	for _, m := range left {
		c.ask(t, m, "snapshot")
	}

	c.start(t, victim) // with the same key and log
	c.until(t, func() bool { return victim.restored })
	c.write(t, 10)
	c.agree(t, members...)
	for _, m := range members {
		if err := m.input.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, m := range members {
		c.until(t, func() bool { return m.cmd == nil })
	}
}

// start starts a member's process and waits for its id. The process ends with
// the test.
func (c *cluster) start(t *testing.T, m *member) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(c.ctx, self)
	cmd.Env = append(os.Environ(), "INTEROP_RAFT="+m.dir, "INTEROP_NODES="+c.nodes)
	cmd.Stderr = t.Output()
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	*m = member{dir: m.dir, cmd: cmd, input: input}
	var reader sync.WaitGroup
	reader.Go(func() { c.read(m, cmd, output) })
	t.Cleanup(reader.Wait)
	c.until(t, func() bool { return m.id != "" })
}

// read hands over what a process prints until its end.
func (c *cluster) read(m *member, cmd *exec.Cmd, output io.Reader) {
	tell := func(e raftEvent) {
		select {
		case c.events <- e:
		case <-c.ctx.Done():
		}
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		tell(raftEvent{of: m, line: lines.Text()})
	}
	end := cmd.Wait()
	if end == nil {
		end = io.EOF
	}
	tell(raftEvent{of: m, end: end})
}

// until reads events until something holds. It fails if a member ends that should not.
func (c *cluster) until(t *testing.T, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case e := <-c.events:
			c.note(t, e)
		case <-c.ctx.Done():
			t.Fatal(context.Cause(c.ctx))
		}
	}
}

// note keeps what an event says.
func (c *cluster) note(t *testing.T, e raftEvent) {
	t.Helper()
	m := e.of
	verb, rest, _ := strings.Cut(e.line, " ")
	switch {
	case e.end != nil:
		m.cmd = nil
		if c.leader == m {
			c.leader = nil
		}
		if e.end != io.EOF && !m.killed {
			t.Fatalf("the member in %s ended: %v", m.dir, e.end)
		}
	case verb == "id":
		m.id = rest
	case e.line == "leads true":
		c.leader = m
	case e.line == "leads false" && c.leader == m:
		c.leader = nil
	case verb == "applied", verb == "restored":
		m.state = rest
		m.restored = m.restored || verb == "restored"
	case verb == "ok", verb == "no":
		m.answer = e.line
	}
}

// ask sends a line to a member, which must say ok.
func (c *cluster) ask(t *testing.T, m *member, line string) {
	t.Helper()
	if answer := c.tell(t, m, line); answer != "ok" {
		t.Fatalf("%s: %s", line, answer)
	}
}

// tell sends a line to a member and returns its answer.
func (c *cluster) tell(t *testing.T, m *member, line string) string {
	t.Helper()
	m.answer = ""
	if _, err := fmt.Fprintln(m.input, line); err != nil {
		t.Fatal(err)
	}
	c.until(t, func() bool { return m.answer != "" })
	return m.answer
}

// write has the leader append n entries. If it is the leader no more, the next
// one gets the entry again.
func (c *cluster) write(t *testing.T, n int) {
	t.Helper()
	for range n {
		next := c.want.Entries + 1
		for answer := ""; answer != "ok"; {
			c.until(t, func() bool { return c.leader != nil })
			answer = c.tell(t, c.leader, fmt.Sprint("apply ", next))
		}
		c.want = c.want.after(entry(next))
	}
}

// agree waits until members have all entries.
func (c *cluster) agree(t *testing.T, members ...*member) {
	t.Helper()
	want := fmt.Sprintf("%d %x", c.want.Entries, c.want.Hash)
	for _, m := range members {
		c.until(t, func() bool { return m.state == want })
	}
}
