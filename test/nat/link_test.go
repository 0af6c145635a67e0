//go:build linux

package nat

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// link is a wire with a delay between two namespaces: two tun devices and a
// pair of goroutines, as not every kernel has netem.
type link struct {
	ends [2]*os.File
	wg   sync.WaitGroup
}

const tunName = "slow0"

// openTun makes a tun device in a namespace.
func openTun(ns string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		// The thread stays in the namespace, so it is given up with the goroutine.
		runtime.LockOSThread()
		f, err := openTunHere(ns)
		c <- result{f, err}
	}()
	r := <-c
	return r.f, r.err
}

func openTunHere(ns string) (*os.File, error) {
	fd, err := unix.Open("/var/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], tunName)
	req.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(tun), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		unix.Close(tun)
		return nil, fmt.Errorf("TUNSETIFF: %w", e)
	}
	return os.NewFile(uintptr(tun), "tun"), nil
}

// wire is what a link does to packets, in each direction.
type wire struct {
	delay     time.Duration
	loss      float64 // of 1, in bursts
	reorder   float64 // of 1, that are held back for another delay
	duplicate float64 // of 1
	corrupt   float64 // of 1, in which one bit is turned
	mtu       int     // of the devices; 0: the kernel's
}

// newLink joins two namespaces.
func newLink(t testing.TB, a, b string, w wire) *link {
	t.Helper()
	l := &link{}
	for i, ns := range []string{a, b} {
		f, err := openTun(ns)
		if err != nil {
			fmt.Fprintf(os.Stderr, "\n*** SKIPPED: %s: no tun device: %v\n\n", t.Name(), err)
			t.Skip("no tun device:", err)
		}
		l.ends[i] = f
	}
	l.wg.Go(func() { w.forward(l.ends[0], l.ends[1]) })
	l.wg.Go(func() { w.forward(l.ends[1], l.ends[0]) })
	t.Cleanup(func() {
		l.ends[0].Close()
		l.ends[1].Close()
		l.wg.Wait()
	})
	return l
}

// burst is how long all packets are lost in a row, on average.
const burst = 20 * time.Millisecond

// forward hands packets on until either device is closed.
func (w wire) forward(from, to *os.File) {
	type packet struct {
		b  []byte
		at time.Time
	}
	queue := make(chan packet, 4096)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.at)) // this is the wire
			_, _ = to.Write(p.b)
		}
	})
	defer wg.Wait()
	defer close(queue)
	b := make([]byte, 1<<16)
	losing, turns := false, time.Now()
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		// Two states, by turns: all is lost in one, and nothing in the other.
		for now := time.Now(); w.loss > 0 && now.After(turns); losing = !losing {
			mean := float64(burst)
			if losing {
				mean *= (1 - w.loss) / w.loss
			}
			turns = turns.Add(time.Duration(rand.ExpFloat64() * mean))
		}
		if losing {
			continue
		}
		p := packet{append([]byte(nil), b[:n]...), time.Now().Add(w.delay)}
		if rand.Float64() < w.corrupt {
			p.b[rand.IntN(n)] ^= 1 << rand.IntN(8)
		}
		if rand.Float64() < w.reorder {
			wg.Go(func() {
				time.Sleep(2 * w.delay) // overtaken by those behind it
				_, _ = to.Write(p.b)
			})
			continue
		}
		for range 1 + int(w.duplicate+rand.Float64()) {
			select {
			case queue <- p:
			default: // a full queue drops
			}
		}
	}
}
