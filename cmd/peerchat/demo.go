package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peerlink/dht"
)

// demoTimeout bounds the whole demo; it takes about two seconds.
const demoTimeout = 60 * time.Second

// demoFile is a file that Alice sends: size bytes of ChaCha8 from a fixed seed.
type demoFile struct {
	name string
	size int64
}

var demoFiles = []demoFile{{"random-64MiB.bin", 64 << 20}, {"empty.txt", 0}}

// newDemo is the command that shows everything on one machine.
func newDemo(o *options) *cobra.Command {
	cmd := plain("demo", func(cmd *cobra.Command) error {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), demoTimeout, fmt.Errorf("the demo did not end in %v", demoTimeout))
		defer cancel()
		d := &demo{timeline: newTimeline(cmd.OutOrStdout(), o.json)}
		return d.run(ctx)
	})
	cmd.AddCommand(newDemoCaller(o))
	return cmd
}

// demo is one run: the parent of Alice and Bob.
type demo struct {
	*timeline
	dir   string
	files []fileReport // what is sent, by what is on the disk
}

// run does the steps in turn. The last line it prints is the summary.
func (d *demo) run(ctx context.Context) (err error) {
	s := summary{Files: []fileReport{}}
	defer func() {
		if ctx.Err() != nil && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		d.finish(s, err)
		if err != nil {
			err = fmt.Errorf("demo: %s: %w", d.current, err)
		}
	}()
	d.begin("files made")
	if d.dir, err = os.MkdirTemp("", "peerchat-demo-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	if err := d.makeFiles(); err != nil {
		return err
	}
	d.done("%d files from a seed in %s", len(d.files), d.dir)

	d.begin("node up")
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	defer node.Close()
	d.done("%s", node.Addrs()[0])

	d.begin("bob up")
	bob, err := startChild(ctx, "listen", "--json", "--loopback", "--local", "off", "--account", filepath.Join(d.dir, "bob"),
		"--into", d.path("received"), "--accept", "always", "--reply", "hello alice", "--bootstrap", node.Addrs()[0])
	if err != nil {
		return err
	}
	defer bob.stop()
	device, err := bob.awaitReady()
	if err != nil {
		return err
	}
	d.done("device %s", device)

	d.begin("alice up")
	alice, err := startChild(ctx, append([]string{
		"demo", "caller", "--json", "--loopback", "--local", "off", "--account", d.path("alice"),
		"--bootstrap", node.Addrs()[0], device,
	}, d.sources()...)...)
	if err != nil {
		return err
	}
	defer alice.stop()
	if s, err = d.follow(alice); err != nil {
		return err
	}
	if err := alice.wait(); err != nil {
		return fmt.Errorf("alice's process: %w", err)
	}
	return d.verify(bob, &s)
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) sources() (paths []string) {
	for _, f := range d.files {
		paths = append(paths, d.path(f.Name))
	}
	return paths
}

// follow shows Alice's steps until her summary.
func (d *demo) follow(alice *child) (s summary, err error) {
	d.begin("alice's steps")
	for {
		var m message
		if err := alice.next(&m); err != nil {
			return s, err
		}
		switch {
		case m.Step == "summary":
			return m.summary, nil
		case !m.OK:
			d.current = m.Step
			return s, errors.New(m.Error)
		default:
			d.show(m.line)
		}
	}
}

// verify asks Bob, and then the disk, whether each file is what was sent.
func (d *demo) verify(bob *child, s *summary) error {
	d.begin("bob verified")
	byBob := map[string]fileReport{}
	for len(byBob) < len(d.files) {
		var m message
		if err := bob.next(&m); err != nil {
			return fmt.Errorf("after %d of %d files: %w", len(byBob), len(d.files), err)
		}
		if m.Step != "file" {
			continue
		}
		if !m.OK {
			return fmt.Errorf("bob: %s", m.Error)
		}
		byBob[m.File.Name] = *m.File
	}
	for i, want := range d.files {
		got, err := hashFile(filepath.Join(d.dir, "received", want.Name))
		if err != nil {
			return err
		}
		sent := s.Files[i].BLAKE3
		if got.SHA256 != want.SHA256 || sent == "" || byBob[want.Name].BLAKE3 != sent {
			return fmt.Errorf("%s was sent with sha256 %s and blake3 %s, bob says blake3 %s, and on his disk it is sha256 %s", want.Name, want.SHA256, sent, byBob[want.Name].BLAKE3, got.SHA256)
		}
		s.Files[i] = want
	}
	d.done("%d files, blake3 as sent, and sha256 on the disk", len(d.files))
	return nil
}
