package main

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionNamesModuleAndCommit(t *testing.T) {
	on := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for want, info := range map[string]debug.BuildInfo{
		"(devel)" + on: {},
		"v1.2.3" + on:  {Main: debug.Module{Version: "v1.2.3"}},
		"v1.2.3 (commit 0123456789ab)" + on: {
			Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{setting("vcs.revision", "0123456789abcdef"), setting("vcs.modified", "false")},
		},
		"v1.2.3 (commit 012, with changes)" + on: {
			Main: debug.Module{Version: "v1.2.3+dirty"}, Settings: []debug.BuildSetting{setting("vcs.revision", "012"), setting("vcs.modified", "true")},
		},
	} {
		if got := versionOf(&info); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run([]string{"--version"}, strings.NewReader(""), &out, &errOut); code != 0 || out.String() != "peerchat version "+version()+"\n" {
		t.Errorf("status %d, %q, %q", code, &out, &errOut)
	}
}
