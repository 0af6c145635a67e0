#!/usr/bin/env bash
# The framework from another module, as docs/go-api.md says it, in a clean copy of
# HEAD: by a replace, beside grpc (which is ambiguous beside an old genproto),
# and after tools/rename-module. It ends with "othermodule: done", or says where it
# stopped. SOURCE names another clone; the default is this one's HEAD.
set -euo pipefail
source=${SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d)
trap 'code=$?; ((code)) && echo "othermodule: FAILED at: $step" >&2; chmod -R u+w "$work"; rm -rf "$work"; exit "$code"' EXIT
say() { step=$1; echo "othermodule: $1"; }
# said TEXT: docs/go-api.md shows this; else the test is about something else.
said() { grep -qF -- "$1" "$work/clone/docs/go-api.md" || { echo "othermodule: docs/go-api.md does not say: $1" >&2; return 1; }; }
# other NAME MODULE: an empty module that uses the clone as MODULE, and grpc.
other() {
	mkdir "$work/$1"
	cd "$work/$1"
	cat >main.go <<-END
		package main

		import (
			"fmt"

			"google.golang.org/grpc/status"

			"$2"
			"$2/account"
		)

		func main() {
			_, err := account.Open("nothing", account.Options{})
			fmt.Println(err, status.Code(err), peerlink.ConnectOptions{})
		}
	END
	go mod init example.org/other 2>"$work/log"
	go mod edit -require="$2@v0.0.0" -replace="$2=$work/clone"
	go mod tidy 2>"$work/log" || { cat "$work/log"; return 1; }
	[[ $(go run .) == "open account in nothing: no account here Unknown"* ]]
}

say "a clean copy of HEAD"
mkdir "$work/clone"
git -c safe.directory='*' -C "$source" archive HEAD | tar -x -C "$work/clone"
export GOWORK=off GOFLAGS="${GOFLAGS:-} -buildvcs=false"
path=$(go list -C "$work/clone" -m)

say "an empty module, by a replace"
said "go mod edit -require=$path@v0.0.0 -replace=$path=/path/to/the/clone"
other replaced "$path"

say "paths that are none change nothing"
said "tools/rename-module example.org/you/peerlink"
cd "$work/clone"
sums() { find . -type f -exec sha256sum {} + | sort; }
sums >"$work/before"
refused() {
	if tools/rename-module "${@:2}" >"$work/log" 2>&1; then
		echo "othermodule: not refused: ${*:2}" >&2
		return 1
	fi
	grep -qF -- "$1" "$work/log" || { echo "othermodule: want “$1”, got:" >&2; cat "$work/log" >&2; return 1; }
}
refused "want one argument"
refused "want one argument" example.org/a example.org/b
refused "the empty string" ""
refused "not a module path: -x" -x
refused "invalid char ' '" "example.org/my peerlink"
refused "double slash" https://example.org/peerlink
refused "trailing slash" example.org/peerlink/
refused "local import path" ../peerlink
refused "major version suffixes" example.org/peerlink/v1
refused "the first element wants a dot" net/http
sums | cmp - "$work/before"

say "tools/rename-module"
tools/rename-module example.org/you/peerlink/v2
for module in . tools test/interop; do
	packages=$(go list -C "$module" -test -deps ./...)
	grep -q "^example.org/you/peerlink/v2" <<<"$packages"
	if grep -E "^$path(/|\$)" <<<"$packages"; then exit 1; fi
done
tools/rename-module example.org/you/peerlink
if grep -r --include='*.go' --include='*.m[do]*' --include='*.y*ml' -F peerlink/v2 .; then exit 1; fi
refused "already" example.org/you/peerlink
for doc in README.md docs/go-api.md; do
	grep -qF -- "-require=example.org/you/peerlink@v0.0.0 -replace=example.org/you/peerlink=/" "$doc"
done
go vet ./...
go vet -C tools ./...
go test ./internal ./identity ./docs # arrows, proofs and the book are what they were

say "an empty module, after the renaming"
other renamed example.org/you/peerlink
say "done"
