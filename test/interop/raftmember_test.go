package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"peerlink/account"
	"peerlink/identity"
)

const raftURI = "raft://log"

// layer is raft's StreamLayer over peerlink: the address of a server is its
// device id.
type layer struct {
	net.Listener
	device *account.Account
}

type deviceAddr string

func (deviceAddr) Network() string  { return "peerlink" }
func (a deviceAddr) String() string { return string(a) }

func (l layer) Addr() net.Addr { return deviceAddr(l.device.Identity().DeviceID().String()) }

func (l layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to, err := identity.ParseDeviceID(string(address))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.device.ConnectionManager().Dial(ctx, to, raftURI)
}

// chain is the state that raft replicates: how many entries were applied, and
// the hash of all of them in their order.
type chain struct {
	say func(format string, args ...any)

	mu  sync.Mutex
	now raftState
}

type raftState struct {
	Entries int
	Hash    []byte
}

// after returns the state after a further entry.
func (s raftState) after(entry []byte) raftState {
	h := sha256.Sum256(append(bytes.Clone(s.Hash), entry...))
	return raftState{s.Entries + 1, h[:]}
}

// entry returns the entry of a number: the number, and 4 KiB of it.
func entry(n int) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(n)), 512)
}

// Apply implements raft.FSM. An entry that comes twice, as its sender did not
// hear that it was committed, counts once.
func (c *chain) Apply(l *raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Equal(l.Data, entry(c.now.Entries+1)) {
		c.now = c.now.after(l.Data)
		c.say("applied %d %x", c.now.Entries, c.now.Hash)
	}
	return nil
}

// Snapshot implements raft.FSM.
func (c *chain) Snapshot() (raft.FSMSnapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, nil
}

// Restore implements raft.FSM.
func (c *chain) Restore(r io.ReadCloser) error {
	defer r.Close()
	var s raftState
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = s
	c.say("restored %d %x", s.Entries, s.Hash)
	return nil
}

// Persist implements raft.FSMSnapshot.
func (s raftState) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (raftState) Release() {}

// raftMember is one process of TestRaft. It prints what happens and obeys the
// lines of its input; at their end it leaves.
func raftMember(dir, nodes string) error {
	opts := account.Options{Name: "raft", Bootstrap: strings.Split(nodes, ","), Loopback: true, LocalDir: "off"}
	acc, err := account.Open(filepath.Join(dir, "account"), opts)
	if errors.Is(err, account.ErrNoAccount) {
		acc, err = account.Create(filepath.Join(dir, "account"), opts)
	}
	if err != nil {
		return err
	}
	defer acc.Close()
	listener, err := acc.ConnectionManager().Listen(raftURI) // before the first call can come
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := acc.Start(ctx); err != nil {
		return err
	}
	if err := acc.Ready(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	r, done, err := startRaft(dir, layer{listener, acc}, &chain{say: say})
	if err != nil {
		return err
	}
	go func() {
		for leads := range r.LeaderCh() {
			say("leads %t", leads)
		}
	}()
	say("id %s", acc.Identity().DeviceID())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := obey(r, lines.Text()); err != nil {
			say("no %q", err.Error())
		} else {
			say("ok")
		}
	}
	return errors.Join(r.Shutdown().Error(), done())
}

// startRaft starts raft on what is in the folder. done closes the log.
func startRaft(dir string, l layer, state raft.FSM) (r *raft.Raft, done func() error, err error) {
	log := hclog.New(&hclog.LoggerOptions{Output: os.Stderr})
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, log)
	if err != nil {
		return nil, nil, err
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l, MaxPool: 3, Timeout: 10 * time.Second, Logger: log,
	})
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.Logger = raft.ServerID(transport.LocalAddr()), log
	cfg.TrailingLogs = 1 // so that one who was away needs the snapshot
	r, err = raft.NewRaft(cfg, state, store, store, snapshots, transport)
	return r, func() error { return errors.Join(transport.Close(), store.Close()) }, err
}

// obey does what one line says.
func obey(r *raft.Raft, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "bootstrap":
		var all raft.Configuration
		for id := range strings.FieldsSeq(rest) {
			all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		return r.BootstrapCluster(all).Error()
	case "apply":
		var n int
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return err
		}
		return r.Apply(entry(n), 10*time.Second).Error()
	case "snapshot":
		return r.Snapshot().Error()
	}
	return fmt.Errorf("what is %q", line)
}
