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
	ends  [2]*os.File
	fades [2]fade // each direction has its own
	wg    sync.WaitGroup
}

// worsen sets what is lost from now on, of 1.
func (l *link) worsen(loss float64) {
	for i := range l.fades {
		l.fades[i].set(loss)
	}
}

const tunName = "slow0"

// within runs f on a thread in a namespace: what it opens lives there.
func within(ns string, f func() error) error {
	errc := make(chan error)
	go func() {
		// The thread stays in the namespace, so it is given up with the goroutine.
		runtime.LockOSThread()
		fd, err := unix.Open("/var/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		errc <- err
	}()
	return <-errc
}

// openTun makes a tun device in a namespace.
func openTun(ns string) (f *os.File, err error) {
	err = within(ns, func() (err error) {
		f, err = openTunHere()
		return err
	})
	return f, err
}

func openTunHere() (*os.File, error) {
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
	loss      float64 // of 1, of the packets, in bursts
	outage    float64 // of 1, of the time, in turns of a few milliseconds
	reorder   float64 // of 1, that are held back for another delay
	duplicate float64 // of 1
	corrupt   float64 // of 1, in which one bit is turned
	mtu       int     // of the devices; 0: the kernel's
}

// newLink joins two namespaces.
func newLink(t testing.TB, a, b string, w wire) *link {
	t.Helper()
	l := &link{}
	l.worsen(w.loss)
	for i, ns := range []string{a, b} {
		f, err := openTun(ns)
		if err != nil {
			fmt.Fprintf(os.Stderr, "\n*** SKIPPED: %s: no tun device: %v\n\n", t.Name(), err)
			t.Skip("no tun device:", err)
		}
		l.ends[i] = f
	}
	l.wg.Go(func() { w.forward(l.ends[0], l.ends[1], &l.fades[0]) })
	l.wg.Go(func() { w.forward(l.ends[1], l.ends[0], &l.fades[1]) })
	t.Cleanup(func() {
		l.ends[0].Close()
		l.ends[1].Close()
		l.wg.Wait()
	})
	return l
}

// burst is how many packets are lost in a row, on average, of those that follow
// each other within fadeLife: a fade does not wait for who sends little.
const (
	burst    = 3
	fadeLife = 50 * time.Millisecond
)

// fade decides which packets are lost (Gilbert's model): of two states, all are
// lost in one and none in the other, and with each packet the state may change.
// It goes by packets, not by time: a sender that slows down when it has lost some
// would else lose fewer than it should. The zero value loses none.
type fade struct {
	mu     sync.Mutex
	loss   float64
	losing bool
	last   time.Time // when a packet came
}

func (f *fade) set(loss float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loss = loss
}

// loses decides about a packet that comes now.
func (f *fade) loses(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := now.Sub(f.last)
	f.last = now
	switch {
	case f.loss <= 0:
		f.losing = false
	case f.loss >= 1:
		f.losing = true
	case since > fadeLife:
		f.losing = rand.Float64() < f.loss
	case f.losing:
		f.losing = rand.Float64() >= leave(f.loss)
	default:
		f.losing = rand.Float64() < leave(f.loss)*f.loss/(1-f.loss)
	}
	return f.losing
}

// leave is how likely the losing state ends with a packet. Bursts are longer
// where more is lost than delivered: losing begins with the next packet at most.
func leave(loss float64) float64 { return min(1.0/burst, (1-loss)/loss) }

// outage is how long one lasts, on average.
const outage = 20 * time.Millisecond

// outages lose all packets for a share of the time, whether any are sent or not.
type outages struct {
	share  float64
	losing bool
	turns  time.Time // when that changes
}

func (o *outages) loses(now time.Time) bool {
	for ; o.share > 0 && now.After(o.turns); o.losing = !o.losing {
		mean := float64(outage)
		if o.losing {
			mean *= (1 - o.share) / o.share
		}
		o.turns = o.turns.Add(time.Duration(rand.ExpFloat64() * mean))
	}
	return o.losing
}

// forward hands packets on until either device is closed.
func (w wire) forward(from, to *os.File, f *fade) {
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
	o := outages{share: w.outage, turns: time.Now()}
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if now := time.Now(); f.loses(now) || o.loses(now) {
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
