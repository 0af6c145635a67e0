package dht

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	record "github.com/libp2p/go-libp2p-record"
	"google.golang.org/protobuf/proto"

	"peerlink/identity"
	"peerlink/internal/journal"
)

// brokenJournal refuses whatever is written.
func brokenJournal(t testing.TB) *journal.Journal {
	t.Helper()
	j, _, err := journal.Open(filepath.Join(t.TempDir(), "x"), journal.Config{}, func(string, []byte) {})
	if err == nil {
		err = j.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// enveloped is a record as the library stores it.
func enveloped(t testing.TB, id *identity.Identity, seq uint64, now time.Time) (key string, value []byte) {
	t.Helper()
	key = recordKey(id.DeviceID())
	env := record.MakePutRecord(key, mustRecord(t, id, seq, now))
	env.TimeReceived = now.UTC().Format(time.RFC3339Nano)
	value, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	return key, value
}

// reopen opens a data folder as a fresh process would.
func reopen(t testing.TB, dir string, log *slog.Logger) (*store, *disk) {
	t.Helper()
	s := newStore()
	s.place("me")
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openDisk(dir, s, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() })
	return s, d
}

// fault: G1, I1
func TestRecordsOutliveTheirNode(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, d := reopen(t, dir, nil)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	ka, va := enveloped(t, alice, 1, time.Now())
	kb, vb := enveloped(t, bob, 1, time.Now())
	if err := s.Put(ctx, dsKey(ka), va); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, dsKey(kb), vb); err != nil {
		t.Fatal(err)
	}
	d.flush()
	if err := s.Delete(ctx, dsKey(kb)); err != nil {
		t.Fatal(err)
	}
	_, va2 := enveloped(t, alice, 2, time.Now())
	if err := s.Put(ctx, dsKey(ka), va2); err != nil {
		t.Fatal(err)
	}
	d.flush()
	_ = d.lock.Unlock() // what a kill does; the journal stays as it is
	again, _ := reopen(t, dir, nil)
	if v, err := again.Get(ctx, dsKey(ka)); err != nil || !bytes.Equal(v, va2) || len(again.records) != 1 {
		t.Errorf("%d records, %v", len(again.records), err)
	}
}

func TestRecordsThatAreOverOrForeignAreNotReadBack(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, d := reopen(t, dir, nil)
	old, good := newIdentity(t, "old"), newIdentity(t, "good")
	ko, vo := enveloped(t, old, 1, time.Now().Add(-3*time.Hour))
	kg, vg := enveloped(t, good, 1, time.Now())
	s.now = func() time.Time { return time.Now().Add(-3 * time.Hour) }
	for k, v := range map[string][]byte{ko: vo, kg: vg, "/peerlink/junk": []byte("junk"), recordKey(bobKey): vg} {
		if err := s.Put(ctx, dsKey(k), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	again, d := reopen(t, dir, nil)
	if _, err := again.Get(ctx, dsKey(kg)); err != nil || len(again.records) != 1 {
		t.Errorf("%d records, %v", len(again.records), err)
	}
	if d.flush(); d.j.Len() != 1 {
		t.Errorf("%d entries are left in the file, want the good one", d.j.Len())
	}
}

// fault: I2
func TestNodeStartsOverADamagedFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"garbage":   func([]byte) []byte { return []byte("garbage of some length") },
		"empty":     func([]byte) []byte { return nil },
		"bit flips": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			node := start(t, Config{Mode: Server, DataDir: dir})
			device(t, "alice", node)
			addr := node.Addrs()[0]
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, recordsFile)
			b, err := os.ReadFile(path)
			if err != nil || len(b) < 1000 {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			again := start(t, Config{Mode: Server, DataDir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if !strings.HasSuffix(again.Addrs()[0], strings.Split(addr, "/p2p/")[1]) {
				t.Error("it has become another node")
			}
			if name != "empty" && !strings.Contains(log.String(), recordsFile) {
				t.Errorf("nothing was said: %q", log.String())
			}
			device(t, "bob", again)
		})
	}
}

// fault: I5, G6
func TestSecondNodeInADataFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, Config{Mode: Server, DataDir: dir})
	if _, err := Start(testContext(t), Config{Mode: Server, DataDir: dir, Listen: []string{loopback}}); err == nil || !strings.Contains(err.Error(), "another node runs") {
		t.Errorf("%v", err)
	}
}

// A disk that takes nothing costs the node nothing but its records' afterlife.
//
// fault: H4
func TestRecordsThatCannotBeWrittenAreTriedAgain(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, d := reopen(t, dir, nil)
	k, v := enveloped(t, newIdentity(t, "alice"), 1, time.Now())
	if err := s.Put(ctx, dsKey(k), v); err != nil {
		t.Fatal(err)
	}
	good := d.j
	d.j = brokenJournal(t)
	d.flush()
	if len(s.changed) != 1 || d.nagged.IsZero() {
		t.Fatalf("%d changes are left, nagged %v", len(s.changed), d.nagged)
	}
	d.j = good
	d.flush()
	if d.j.Len() != 1 || len(s.changed) != 0 {
		t.Errorf("%d written, %d left", d.j.Len(), len(s.changed))
	}
}
