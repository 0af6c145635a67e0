package interop_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A shell is a way to bob's sshd. It runs use with the name of a host in
// ssh_config, which is good for one connection.
type shell func(t *testing.T, use func(host string))

// shells starts sshd as inetd does, behind pipe and forward.
func (m *machine) shells(t *testing.T) map[string]shell {
	t.Helper()
	need(t, "ssh", "ssh-keygen")
	path, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		need(t, "sshd")
		path, _ = exec.LookPath("sshd")
	}
	if err := os.Mkdir("/run/sshd", 0o755); err == nil { // sshd wants it, if root runs it
		t.Cleanup(func() { _ = os.Remove("/run/sshd") })
	}
	for _, key := range []string{"host", "user"} {
		m.run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	m.write(t, "authorized_keys", m.read(t, "user.pub"))
	m.write(t, "known_hosts", append([]byte("bob "), m.read(t, "host.pub")...))
	m.write(t, "sshd_config", fmt.Appendf(nil, `
		HostKey %[1]s/host
		AuthorizedKeysFile %[1]s/authorized_keys
		AuthenticationMethods publickey
		PermitRootLogin prohibit-password
		StrictModes no
		UsePAM no
		PermitUserRC no
	`, m.dir))
	sshd := []string{path, "-i", "-f", m.dir + "/sshd_config"}
	port := m.inetd(t, sshd...).Port
	m.write(t, "ssh_config", fmt.Appendf(nil, `
		Host pipe
			ProxyCommand peerchat pipe --account %[1]s/alice --name ssh %[2]s
		Host forward
			HostName 127.0.0.1
			Port %[3]d
		Host *
			IdentityFile %[1]s/user
			UserKnownHostsFile %[1]s/known_hosts
			GlobalKnownHostsFile none
			HostKeyAlias bob
			StrictHostKeyChecking yes
			IdentitiesOnly yes
			IdentityAgent none
			BatchMode yes
			ForwardAgent no
	`, m.dir, m.bob, port))
	return map[string]shell{
		"pipe": func(t *testing.T, use func(string)) {
			// ssh ends its ProxyCommand by a signal: how the pipe ends says nothing.
			_ = m.pipe(t, "ssh", sshd, func() { use("pipe") })
		},
		"forward": func(_ *testing.T, use func(string)) { use("forward") },
	}
}

// OpenSSH, rsync and git, each through peerchat pipe and peerchat forward.
func TestPrograms(t *testing.T) {
	t.Parallel()
	need(t, "rsync", "git")
	m := newMachine(t)
	for name, through := range m.shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("ssh", func(t *testing.T) { m.ssh(t, through) })
			t.Run("rsync", func(t *testing.T) {
				m.rsync(t, name, func(t *testing.T, sync func(to string)) {
					through(t, func(host string) { sync(host + ":" + m.dir + "/" + name) })
				})
			})
			t.Run("git", func(t *testing.T) {
				m.git(t, name+".git", func(t *testing.T, use func(url string)) {
					through(t, func(host string) { use(host + ":" + m.dir + "/" + name + ".git") })
				})
			})
		})
	}
	t.Run("rsync's daemon through forward", func(t *testing.T) {
		m.write(t, "rsyncd.conf", fmt.Appendf(nil, "use chroot = no\n[all]\npath = %s/daemon\nread only = no\nmunge symlinks = no\nuid = %d\ngid = %d\n", m.dir, os.Getuid(), os.Getgid()))
		if err := os.Mkdir(filepath.Join(m.dir, "daemon"), 0o700); err != nil {
			t.Fatal(err)
		}
		at := m.inetd(t, "rsync", "--daemon", "--config="+m.dir+"/rsyncd.conf", "--log-file=/dev/null")
		m.rsync(t, "daemon", func(_ *testing.T, sync func(string)) { sync("rsync://" + at.String() + "/all") })
	})
	t.Run("git's daemon through forward", func(t *testing.T) {
		at := m.inetd(t, "git", "daemon", "--inetd", "--export-all", "--enable=receive-pack", "--base-path="+m.dir)
		m.git(t, "daemon.git", func(_ *testing.T, use func(string)) { use("git://" + at.String() + "/daemon.git") })
	})
	t.Run("git through a pipe of its own", func(t *testing.T) {
		if err := m.pipe(t, "git", []string{"git", "upload-pack", "daemon.git"}, func() {
			url := "ext::peerchat pipe --account " + m.dir + "/alice --name git " + m.bob
			m.run(t, nil, "git", "-c", "protocol.ext.allow=always", "clone", "-q", url, "by pipe")
		}); err != nil {
			t.Errorf("a pipe that both sides have ended, ended with %v", err)
		}
		m.run(t, nil, "git", "-C", "by pipe", "fsck", "--full", "--strict")
	})
}

// ssh moves bytes both ways, and tells the status.
func (m *machine) ssh(t *testing.T, through shell) {
	long := noise(8 << 20)
	through(t, func(host string) {
		if back := m.run(t, long, "ssh", "-F", "ssh_config", host, "cat"); !bytes.Equal(back, long) {
			t.Errorf("%d of %d bytes come back, or others", len(back), len(long))
		}
	})
	through(t, func(host string) {
		err := m.command(limited(t), t, "ssh", "-F", "ssh_config", host, "exit 42").Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 42 {
			t.Errorf("of status 42 there comes %v", err)
		}
	})
}

// rsync copies a tree to a folder, and copies it again after changes.
func (m *machine) rsync(t *testing.T, to string, through func(t *testing.T, sync func(to string))) {
	from := filepath.Join("tree of", to)
	long := noise(4 << 20)
	m.write(t, from+"/long", long)
	m.write(t, from+"/empty", nil)
	m.write(t, from+"/a folder/ünïcode", []byte("word"))
	if err := os.Symlink("a folder", filepath.Join(m.dir, from, "link")); err != nil {
		t.Fatal(err)
	}
	sync := func(to string) {
		m.run(t, nil, "rsync", "-a", "--delete", from+"/", to)
	}
	through(t, sync)
	m.same(t, from, to)
	m.write(t, from+"/long", slices.Insert(long, 1<<20, []byte("changed")...))
	if err := os.Remove(filepath.Join(m.dir, from, "empty")); err != nil {
		t.Fatal(err)
	}
	through(t, sync)
	m.same(t, from, to)
}

// git pushes to a new repository, and clones it.
func (m *machine) git(t *testing.T, repository string, through func(t *testing.T, use func(url string))) {
	work := "work on " + repository
	m.run(t, nil, "git", "init", "-q", "-b", "main", "--bare", repository)
	m.run(t, nil, "git", "init", "-q", "-b", "main", work)
	for i := range 3 {
		m.write(t, work+"/file", noise(i<<20))
		m.run(t, nil, "git", "-C", work, "add", "file")
		m.run(t, nil, "git", "-C", work, "commit", "-q", "-m", strconv.Itoa(i))
	}
	through(t, func(url string) { m.run(t, nil, "git", "-C", work, "push", "-q", url, "main") })
	through(t, func(url string) { m.run(t, nil, "git", "clone", "-q", url, "clone of "+repository) })
	m.run(t, nil, "git", "-C", "clone of "+repository, "fsck", "--full", "--strict")
	want := m.run(t, nil, "git", "-C", work, "rev-parse", "main")
	if got := m.run(t, nil, "git", "-C", "clone of "+repository, "rev-parse", "HEAD"); !bytes.Equal(got, want) {
		t.Errorf("the clone is at %s, not %s", got, want)
	}
}

// same compares two trees by names and sums.
func (m *machine) same(t *testing.T, a, b string) {
	t.Helper()
	if a, b := m.sums(t, a), m.sums(t, b); a != b {
		t.Errorf("copied:\n%s\narrived:\n%s", a, b)
	}
}

func (m *machine) sums(t *testing.T, folder string) string {
	t.Helper()
	var s strings.Builder
	root := filepath.Join(m.dir, folder)
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Type().IsRegular():
			fmt.Fprintf(&s, "%s %x\n", name, sha256.Sum256(m.read(t, filepath.Join(folder, name))))
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(filepath.Join(root, name))
			fmt.Fprintf(&s, "%s -> %s, %v\n", name, to, err)
		default:
			fmt.Fprintln(&s, name, e.Type())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func (m *machine) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m *machine) write(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p)
	return p
}
