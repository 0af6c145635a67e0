package ice

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/identity"
	"peerlink/internal/calls/callstest"
)

func singleEngines(t *testing.T, f func(t *testing.T, name string)) {
	for _, name := range []string{engineTCP, engineUDP} {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

func TestUDPStreamsAreCompleteNetConns(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("udp")), x.newDevice(t, "b", engines("udp"))
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c1, c2 := connect(t, a, b)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// nettest cannot pass over TCP: crypto/tls gives a connection up for writing
// when a Write has run into its deadline, and nettest goes on with it. What
// holds beside that is here.
func TestTCPStreamsKeepReadingAfterADeadline(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("tcp")), x.newDevice(t, "b", engines("tcp"))
	ca, cb := connect(t, a, b)
	for _, d := range []time.Duration{-time.Second, time.Millisecond, 5 * time.Millisecond} {
		ca.SetReadDeadline(time.Now().Add(d))
		if _, err := ca.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read past %v: %v", d, err)
		}
		ca.SetReadDeadline(time.Time{})
		if _, err := cb.Write([]byte("still here")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("still here"))
		if _, err := io.ReadFull(ca, got); err != nil || string(got) != "still here" {
			t.Fatalf("read %q, %v", got, err)
		}
	}
}

// bulk is how much the transfer tests move in each direction.
func bulk() int64 {
	switch {
	case raceEnabled:
		return 8 << 20
	case testing.Short():
		return 64 << 20
	default:
		return 1 << 30
	}
}

// writeBulk writes n pseudo-random bytes in pieces of changing length. They
// repeat after a prime length, so that none of them can be lost, doubled or
// moved without the hash telling.
func writeBulk(w io.Writer, seed uint64, n int64, sum hash.Hash) error {
	src := make([]byte, 1<<20+7)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(src)
	r := rand.New(rand.NewPCG(seed, 1))
	for off := 0; n > 0; {
		size := int(min(n, int64(1+r.IntN(128<<10)), int64(len(src)-off)))
		p := src[off : off+size]
		sum.Write(p)
		if _, err := w.Write(p); err != nil {
			return err
		}
		n -= int64(size)
		off = (off + size) % len(src)
	}
	return nil
}

type closeWriter interface{ CloseWrite() error }

// A whole gigabyte both ways at once: no trap of the engines beneath shows.
// Half-close ends each direction by itself.
func TestBulkBothWaysAtOnceArrivesIntact(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name))
		ca, cb := connect(t, a, b)
		start, n := time.Now(), bulk()
		var wg sync.WaitGroup
		sums := map[string]hash.Hash{}
		for _, k := range []string{"a out", "a in", "b out", "b in"} {
			sums[k] = sha256.New()
		}
		for i, c := range []net.Conn{ca, cb} {
			side := string("ab"[i])
			wg.Go(func() {
				if err := writeBulk(c, uint64(i), n, sums[side+" out"]); err != nil {
					t.Errorf("%s writes: %v", side, err)
				}
				if err := c.(closeWriter).CloseWrite(); err != nil {
					t.Errorf("%s half-closes: %v", side, err)
				}
			})
			wg.Go(func() {
				got, err := io.CopyBuffer(struct{ io.Writer }{sums[side+" in"]}, c, make([]byte, 128<<10))
				if got != n || err != nil {
					t.Errorf("%s read %d of %d: %v", side, got, n, err)
				}
			})
		}
		wg.Wait()
		t.Logf("%d MiB each way in %v", n>>20, time.Since(start).Round(time.Millisecond))
		for _, p := range [][2]string{{"a out", "b in"}, {"b out", "a in"}} {
			if !bytes.Equal(sums[p[0]].Sum(nil), sums[p[1]].Sum(nil)) {
				t.Errorf("%s is not %s", p[1], p[0])
			}
		}
	})
}

// fault: C4
func TestCloseRightAfterWriteDeliversEverything(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name))
		want := bytes.Repeat([]byte("peerlink"), 64<<10)
		for range 5 {
			ca, cb := connect(t, a, b)
			go func() {
				ca.Write(want)
				ca.Close()
			}()
			got, err := io.ReadAll(slowReader{cb})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d of %d bytes, %v", len(got), len(want), err)
			}
			if _, err := cb.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("read after the end: %v", err)
			}
			cb.Close()
		}
	})
}

// slowReader reads in small pieces.
type slowReader struct{ io.Reader }

func (r slowReader) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1000)]) }

// fault: C4
func TestCloseDuringABlockedWriteIsNoCleanEndForTheReader(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name))
		ca, cb := connect(t, a, b)
		wrote := make(chan error, 1)
		go func() {
			_, err := ca.Write(make([]byte, 64<<20))
			wrote <- err
		}()
		// The reader takes a little, so the writer is in the middle of its piece.
		if _, err := io.ReadFull(cb, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		ca.Close()
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		cb.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := io.Copy(io.Discard, cb)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	})
}

func TestWriteToAPeerThatHasClosedFails(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name))
		ca, cb := connect(t, a, b)
		cb.Close()
		ca.SetDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, err := ca.Write(make([]byte, 4096)); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
					t.Errorf("write: %v", err)
				}
				return
			}
		}
	})
}

func TestLocalCloseWakesReaderAndMatchesErrClosed(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name))
		ca, _ := connect(t, a, b)
		read := make(chan error, 1)
		go func() {
			_, err := ca.Read(make([]byte, 1))
			read <- err
		}()
		for range 3 {
			ca.Close()
		}
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		for op, err := range map[string]error{
			"read":     second(ca.Read(make([]byte, 1))),
			"write":    second(ca.Write([]byte{1})),
			"deadline": ca.SetDeadline(time.Now()),
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v", op, err)
			}
		}
	})
}

func second(_ int, err error) error { return err }

func TestClosingTheTransportEndsItsUDPStreamsOnBothSides(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("udp")), x.newDevice(t, "b", engines("udp"))
	ca, cb := connect(t, a, b)
	a.Close()
	if _, err := ca.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("here: %v", err)
	}
	cb.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := cb.Read(make([]byte, 1)); err == io.EOF || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("there: %v", err)
	}
}

// victimEnv makes the test binary a device that is there to be killed.
const victimEnv = "PEERLINK_ICE_VICTIM"

// Letters to and from it are lines of "hex chain,… hex message".

func writeLetter(w io.Writer, from identity.Peer, msg []byte) error {
	var chain []string
	for _, c := range from.Chain() {
		chain = append(chain, hex.EncodeToString(c))
	}
	_, err := fmt.Fprintf(w, "%s %x\n", strings.Join(chain, ","), msg)
	return err
}

func readLetter(line string) (callstest.Letter, error) {
	chain, msg, _ := strings.Cut(strings.TrimSpace(line), " ")
	var der [][]byte
	for c := range strings.SplitSeq(chain, ",") {
		b, err := hex.DecodeString(c)
		if err != nil {
			return callstest.Letter{}, err
		}
		der = append(der, b)
	}
	from, err := identity.VerifyChain(der, time.Now())
	if err != nil {
		return callstest.Letter{}, err
	}
	b, err := hex.DecodeString(msg)
	return callstest.Letter{From: from, Msg: b}, err
}

func runAsVictim() bool {
	name := os.Getenv(victimEnv)
	if name == "" {
		return false
	}
	if err := victim(name); err != nil {
		fmt.Fprintln(os.Stderr, "victim:", err)
		os.Exit(1)
	}
	return true
}

// victim answers one call and writes until it is killed.
func victim(engine string) error {
	id, err := identity.Generate("victim")
	if err != nil {
		return err
	}
	box := newExchange().Join(id)
	box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
		return nil, writeLetter(os.Stdout, id.Peer(), msg)
	}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if l, err := readLetter(lines.Text()); err == nil {
				box.In <- l
			}
		}
		os.Exit(0) // the test is gone
	}()
	tr, err := New(Config{Identity: id, Signaller: box, Loopback: true, Addresses: onLoopback, Engines: []string{engine}})
	if err != nil {
		return err
	}
	if err := writeLetter(os.Stdout, id.Peer(), nil); err != nil {
		return err
	}
	conn, _, err := tr.Accept(context.Background())
	if err != nil {
		return err
	}
	_, err = io.Copy(conn, conn) // echo, then idle until killed
	return err
}

// startVictim starts the process and reads who it is.
func startVictim(t *testing.T, name string) (*exec.Cmd, io.Writer, *bufio.Reader, callstest.Letter) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.Clone(os.Environ()), victimEnv+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	first, err := readLetter(line)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, in, lines, first
}

// fault: C3, F2
func TestAKilledPeerIsNoticedWithinThreeSeconds(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		within(t, 3*time.Second, func() time.Duration { return killed(t, name) })
	})
}

// killed returns how long it took to notice that a peer was.
func killed(t *testing.T, name string) time.Duration {
	cmd, in, lines, first := startVictim(t, name)
	a := newExchange().newDevice(t, "a", engines(name))
	a.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
		return nil, writeLetter(in, a.id.Peer(), msg)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cmd.Process.Kill() // ends the goroutine below on every path
	wg.Go(func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if l, err := readLetter(line); err == nil {
				a.box.In <- l
			}
		}
	})
	conn, _, err := a.Dial(limit(t, 20*time.Second), first.From.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cmd.Process.Kill()
	_, err = conn.Read(make([]byte, 1))
	noticed := time.Since(start)
	t.Logf("noticed after %v: %v", noticed.Round(time.Millisecond), err)
	if err == nil || err == io.EOF {
		t.Errorf("read of a killed peer: %v", err)
	}
	return noticed
}
