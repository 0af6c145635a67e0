#!/usr/bin/env bash
# google/renameio: which mode a file has after WriteFile with WithStaticPermissions.
#
# The usual guess: renameio.WriteFile(path, data, 0o600, WithStaticPermissions(0o600))
# leaves a file of mode 0600: two arguments say so, and "static" is what is wanted for
# a key that a careless chmod had opened.
#
# What happens: WriteFile adds WithExistingPermissions before the caller's options,
# and WithStaticPermissions does not take that back. If the file is there, its mode
# stays: 0644 stays 0644, with a new key inside. renameio.TempFile and
# CloseAtomicallyReplace give 0600.
#
# Seen with renameio v2.0.2, Go 1.26.8, linux/amd64, 2026-11-30; seconds. Exit 0
# while it is so, 77 without Go or the module.
set -eu
command -v go >/dev/null || exit 77
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >main.go <<'G'
package main

import (
	"fmt"
	"os"

	"github.com/google/renameio/v2"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func mode(path string) os.FileMode {
	st, err := os.Stat(path)
	check(err)
	return st.Mode().Perm()
}

func open(path string) {
	check(os.WriteFile(path, []byte("old"), 0o600))
	check(os.Chmod(path, 0o644))
}

func main() {
	open("a")
	check(renameio.WriteFile("a", []byte("new"), 0o600, renameio.WithTempDir("."), renameio.WithStaticPermissions(0o600)))
	open("b")
	f, err := renameio.TempFile(".", "b")
	check(err)
	_, err = f.Write([]byte("new"))
	check(err)
	check(f.CloseAtomicallyReplace())
	fmt.Printf("%o %o\n", mode("a"), mode("b"))
}
G
go mod init example.org/mode 2>/dev/null
go get github.com/google/renameio/v2@v2.0.2 2>log || exit 77
read -r static temp <<<"$(go run .)"
echo "a file of mode 644 has $static after WriteFile with WithStaticPermissions(0600), $temp after TempFile"
[ "$static" = 644 ] && [ "$temp" = 600 ]
