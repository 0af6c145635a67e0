package account

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"peerlink/identity"
)

// mortal are files that die after some calls: the one that is fatal has no
// effect but a half-written temporary file, and nothing works after it.
type mortal struct {
	files
	lives int
	err   error
}

var errDead = errors.New("the process is dead")

func (m *mortal) die(name string) error {
	if m.lives--; m.lives >= 0 {
		return nil
	}
	if dir, ok := m.files.(dirFiles); ok && m.err == nil {
		_ = os.WriteFile(dir.path("."+name+"123"), []byte("-----BEG"), 0o600)
	}
	if m.err != nil {
		return m.err
	}
	return errDead
}

func (m *mortal) replace(name string, b []byte) error {
	if err := m.die(name); err != nil {
		return err
	}
	return m.files.replace(name, b)
}

func (m *mortal) remove(name string) error {
	if err := m.die(name); err != nil {
		return err
	}
	return m.files.remove(name)
}

// Making an account dies before each of its steps. Afterwards there either is
// a whole account or there is none, and then it can be made in the same place.
//
// fault: I1
func TestCreateMayDieAtAnyStep(t *testing.T) {
	const steps = 5
	for lives := range steps + 1 {
		t.Run(fmt.Sprintf("after %d steps", lives), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "acc")
			dead, err := createIn(dir, &mortal{files: dirFiles(dir), lives: lives}, Options{Name: "alice"})
			if (err == nil) != (lives == steps) {
				t.Fatalf("%v", err)
			}
			if err == nil {
				dead.close()
			}
			f, err := openFolder(dir)
			switch {
			case lives >= steps-1 && err != nil:
				t.Fatalf("the account is whole, but: %v", err)
			case lives < steps-1 && !errors.Is(err, ErrNoAccount):
				t.Fatalf("%v, want ErrNoAccount", err)
			case err != nil:
				if f, err = createFolder(dir, Options{Name: "alice"}); err != nil {
					t.Fatalf("it cannot be made again: %v", err)
				}
			}
			f.close()
			again := mustOpen(t, dir)
			if again.id.DeviceID() != f.id.DeviceID() {
				t.Error("two identities in one folder")
			}
			if got := names(t, dir); len(got) != 4 {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}

// fault: I1
func TestTrustChangeMayDie(t *testing.T) {
	dir, _ := newFolder(t)
	f := mustOpen(t, dir)
	if err := f.setTrust(someID, identity.Banned); err != nil {
		t.Fatal(err)
	}
	f.change = &mortal{files: f.disk}
	if err := f.setTrust(identity.DeviceID{7}, identity.Banned); !errors.Is(err, errDead) {
		t.Fatal(err)
	}
	f.close()
	f = mustOpen(t, dir)
	if f.trust.Decision(someID) != identity.Banned || f.trust.Decision(identity.DeviceID{7}) != identity.Undecided {
		t.Error("neither the old nor the new state")
	}
}

// victimEnv names the folder that this test program, started once more, works
// on until it is killed.
const victimEnv = "PEERLINK_TEST_VICTIM"

// victim bans one device after another and says so after each. It never
// returns.
func victim(dir string) {
	f, err := openFolder(dir)
	if errors.Is(err, ErrNoAccount) {
		f, err = createFolder(dir, Options{Name: "victim"})
	}
	for i := 1; err == nil; i++ {
		if err = f.setTrust(identity.DeviceID{1, byte(i), byte(i >> 8)}, identity.Banned); err == nil {
			fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A process is killed while it writes. Whatever it had reported as done is
// there, the account opens at once, and the lock died with the process.
//
// fault: I1, D5
func TestKilledProcessLosesNothingItReported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acc")
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, reported := bufio.NewScanner(out), 0
		for lines.Scan() {
			reported++
			if reported == 3+round*5 {
				if _, err := openFolder(dir); !errors.Is(err, ErrInUse) {
					t.Errorf("while it runs: %v, want ErrInUse", err)
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // "killed", as it should be
		if reported < 3+round*5 {
			t.Fatalf("the process ended by itself after %d", reported)
		}
		f, err := openFolder(dir)
		if err != nil {
			t.Fatalf("after the kill: %v", err)
		}
		for i := 1; i <= reported; i++ {
			if f.trust.Decision(identity.DeviceID{1, byte(i), byte(i >> 8)}) != identity.Banned {
				t.Errorf("round %d: ban %d of %d was lost", round, i, reported)
			}
		}
		f.close()
	}
}
