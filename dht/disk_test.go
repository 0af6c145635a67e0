package dht

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	record "github.com/libp2p/go-libp2p-record"
	"google.golang.org/protobuf/proto"

	"peerlink/identity"
)

// files returns the names of the stored records.
func files(t testing.TB, d *disk) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
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
	_ = d.lock.Unlock() // what a kill does
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
	if d.flush(); len(files(t, d)) != 1 {
		t.Errorf("%q are left, want the good one", files(t, d))
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
			paths, err := filepath.Glob(filepath.Join(dir, recordsDir, "*"))
			if err != nil || len(paths) != 1 {
				t.Fatalf("%q, %v", paths, err)
			}
			path := paths[0]
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
			if !strings.Contains(log.String(), filepath.Join(dir, recordsDir)+" damaged=1") {
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
	good := d.dir
	d.dir = filepath.Join(t.TempDir(), "gone")
	d.flush()
	if len(s.changed) != 1 || d.nagged.IsZero() {
		t.Fatalf("%d changes are left, nagged %v", len(s.changed), d.nagged)
	}
	d.dir = good
	d.flush()
	if len(files(t, d)) != 1 || len(s.changed) != 0 {
		t.Errorf("%q written, %d left", files(t, d), len(s.changed))
	}
}

// fault: H4
func TestRecordThatCannotBeWrittenCostsTheOthersNothing(t *testing.T) {
	s, d := reopen(t, t.TempDir(), nil)
	var stuck string
	for i := range 20 {
		k, v := enveloped(t, newIdentity(t, "x"), 1, time.Now())
		if i == 0 { // a folder stands where its file would
			stuck = filepath.Join(d.dir, dsKey(k).BaseNamespace())
			if err := os.MkdirAll(filepath.Join(stuck, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Put(context.Background(), dsKey(k), v); err != nil {
			t.Fatal(err)
		}
	}
	if d.flush(); len(s.changed) != 1 {
		t.Fatalf("%d records are not written, want 1", len(s.changed))
	}
	if err := os.RemoveAll(stuck); err != nil {
		t.Fatal(err)
	}
	if d.flush(); len(s.changed) != 0 || len(files(t, d)) != 20 {
		t.Errorf("%d are not written, %q are", len(s.changed), files(t, d))
	}
}

const victimEnv = "PEERLINK_DISK_VICTIM"

// victim stores newer and newer records until it is killed, and says which are on
// disk.
func victim(dir string) {
	s := newStore()
	s.place("me")
	d, err := openDisk(dir, s, slog.New(slog.DiscardHandler))
	var ids [8]*identity.Identity
	for i := range ids {
		if err == nil {
			ids[i], err = identity.Generate("x")
		}
	}
	for seq := uint64(1); err == nil; seq++ {
		for _, id := range ids {
			var b []byte
			if b, err = encodeRecord(id, seq, time.Now(), time.Now().Add(time.Hour)); err == nil {
				err = s.putOwn(recordKey(id.DeviceID()), b)
			}
		}
		if d.flush(); err == nil && len(s.changed) == 0 {
			fmt.Println(seq)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// fault: G1, I1
func TestKilledNodeLosesNoRecordItHadWritten(t *testing.T) {
	for round := range 10 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var said uint64
		for lines := bufio.NewScanner(out); said < uint64(2+round) && lines.Scan(); {
			if _, err := fmt.Sscan(lines.Text(), &said); err != nil {
				t.Error(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		var log bytes.Buffer
		s, _ := reopen(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
		if len(s.records) != 8 || log.Len() != 0 {
			t.Fatalf("round %d: %d records, %s", round, len(s.records), &log)
		}
		for key, r := range s.records {
			rec, _, _, err := parseRecord(envelopeOf(r.value).GetValue())
			if err != nil || rec.Seq < said {
				t.Errorf("round %d: %s is of round %d, %d had been written, %v", round, key, rec.Seq, said, err)
			}
		}
	}
}

// Whatever byte of a file is damaged, and wherever it is cut: the record is left
// out, and the others are there.
//
// fault: I1, I2, A3, A5
func TestDamageCostsOnlyTheRecordThatWasDamaged(t *testing.T) {
	dir := t.TempDir()
	s, d := reopen(t, dir, nil)
	for range 3 {
		k, v := enveloped(t, newIdentity(t, "x"), 1, time.Now())
		if err := s.Put(context.Background(), dsKey(k), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.dir, files(t, d)[1])
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		for _, b := range [][]byte{flipped, whole[:i]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			again := &disk{dir: d.dir, values: newStore(), log: d.log}
			if err := again.load(); err != nil || len(again.values.records) != 2 || len(again.values.changed) != 1 {
				t.Fatalf("byte %d: %d records, %d to delete, %v", i, len(again.values.records), len(again.values.changed), err)
			}
		}
	}
	// One record's file under another's name.
	other := filepath.Join(d.dir, files(t, d)[0])
	if err := errors.Join(os.WriteFile(path, whole, 0o600), os.Rename(path, other)); err != nil {
		t.Fatal(err)
	}
	if s, _ := reopen(t, dir, nil); len(s.records) != 1 {
		t.Errorf("%d records, want the one that was left as it was", len(s.records))
	}
}

// A link is never followed, and what is no record's file stays: an older
// version's journal, too.
//
// fault: I2
func TestFilesThatAreNoRecordsAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	records := filepath.Join(dir, recordsDir)
	k, v := enveloped(t, newIdentity(t, "x"), 1, time.Now())
	target, name := filepath.Join(dir, "records.journal"), dsKey(k).BaseNamespace()
	err := errors.Join(
		os.Mkdir(records, 0o700),
		os.WriteFile(target, []byte("precious"), 0o600),
		os.WriteFile(filepath.Join(records, "notes.txt"), []byte("mine"), 0o600),
		os.Symlink(target, filepath.Join(records, name)),
		os.Symlink(target, filepath.Join(records, unfinished)))
	if err != nil {
		t.Skip(err)
	}
	var log bytes.Buffer
	s, d := reopen(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
	if len(s.records) != 0 || !strings.Contains(log.String(), "foreign=2") {
		t.Errorf("%d records, %s", len(s.records), &log)
	}
	if err := s.Put(context.Background(), dsKey(k), v); err != nil {
		t.Fatal(err)
	}
	if d.flush(); len(s.changed) != 0 {
		t.Error("the record was not written")
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Lstat(filepath.Join(records, name)); err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if got := files(t, d); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// A folder of more files than a store takes costs no more memory, and shrinks.
//
// fault: J1
func TestFolderOfTooManyRecordsShrinks(t *testing.T) {
	dir := t.TempDir()
	s, d := reopen(t, dir, nil)
	k, v := enveloped(t, newIdentity(t, "x"), 1, time.Now())
	if err := d.write(dsKey(k), v); err != nil {
		t.Fatal(err)
	}
	for i := range maxRecords {
		s.records[dsKey(fmt.Sprint("/peerlink/", i))] = new(stored)
	}
	if err := d.write(dsKey(recordKey(bobKey)), make([]byte, maxFileLen)); err != nil {
		t.Fatal(err)
	}
	if err := d.load(); err != nil || len(s.records) != maxRecords || len(s.changed) != 2 {
		t.Fatalf("%d records, %d to delete, %v", len(s.records), len(s.changed), err)
	}
	if d.flush(); len(files(t, d)) != 0 {
		t.Errorf("%q are left", files(t, d))
	}
}

// fault: A1
func FuzzStoredRecord(f *testing.F) {
	k, v := enveloped(f, newIdentity(f, "x"), 1, time.Now())
	name := dsKey(k).BaseNamespace()
	f.Add(name, append(checksum(name, v), v...))
	f.Add(name, v)
	f.Add("notes.txt", []byte{})
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		dir := t.TempDir()
		if strings.ContainsAny(name, "/\\") || os.WriteFile(filepath.Join(dir, name), b, 0o600) != nil {
			t.Skip()
		}
		d := &disk{dir: dir, values: newStore(), log: slog.New(slog.DiscardHandler)}
		if err := d.load(); err != nil {
			t.Fatal(err)
		}
		for key, r := range d.values.records {
			if key.BaseNamespace() != name || !bytes.Equal(b, append(checksum(name, r.value), r.value...)) {
				t.Errorf("%q became %q", b, r.value)
			}
		}
	})
}
