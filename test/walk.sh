#!/usr/bin/env bash
# A new user's walk: README.md's commands and nothing else, in a clean copy of
# HEAD, on this machine. It builds the program, starts a node, makes two accounts, chats,
# sends a file, and asks the doctor. It ends with "walk: done", or says loudly
# where it stopped. SOURCE names another clone; the default is this one's HEAD.
set -euo pipefail
source=${SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d)
pids=()
step="begin"
finish() {
	code=$?
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait || true
	if ((code)); then
		echo "walk: FAILED at: $step" >&2
		for log in "$work"/*.log; do [[ -s $log ]] && sed "s|^|$(basename "$log"): |" "$log" >&2; done
	fi
	rm -rf "$work"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
say() { step=$1; echo "walk: $1"; }
# until_line FILE REGEX: waits up to 20 s for a line and prints it.
until_line() {
	for _ in $(seq 400); do
		grep -m1 -E "$2" "$1" 2>/dev/null && return
		sleep 0.05
	done
	echo "walk: no line like $2 in $(basename "$1")" >&2
	return 1
}
# said TEXT: README.md shows this command; else the walk is about something else.
said() {
	grep -qF -- "$1" "$work/peerlink/README.md" || { echo "walk: README.md does not say: $1" >&2; return 1; }
}

say "a clean copy of HEAD"
mkdir "$work/peerlink"
git -c safe.directory='*' -C "$source" archive HEAD | tar -x -C "$work/peerlink"
cd "$work/peerlink"
export HOME=$work/home GOBIN=$work/bin GOPATH=$(go env GOPATH) GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE)
export XDG_RUNTIME_DIR=$work/run XDG_DATA_HOME=$work/home/.local/share
unset PEERCHAT_BOOTSTRAP
mkdir -p "$HOME" -m 700 "$XDG_RUNTIME_DIR"
PATH=$GOBIN:$PATH

say "go install ./cmd/peerchat"
said "go install ./cmd/peerchat"
go install ./cmd/peerchat
peerchat --help >"$work/help.log"

say "peerchat node"
said "peerchat node --listen /ip4/127.0.0.1/tcp/"
peerchat node --listen /ip4/127.0.0.1/tcp/0 >"$work/node.log" 2>"$work/node.err.log" &
pids+=($!)
PEERCHAT_BOOTSTRAP=$(until_line "$work/node.log" '^/ip4/127\.0\.0\.1/tcp/[0-9]+/p2p/12D3Koo')
said "export PEERCHAT_BOOTSTRAP="
export PEERCHAT_BOOTSTRAP

# Twice: as two users of one machine, who meet over shared memory, and with
# --local off, which is the way through the DHT and ICE.
for local in "" "--local off"; do
	read -ra flags <<<"--loopback $local"
	tag=${local:+far}
	tag=${tag:-near}
	say "peerchat listen (${local:-shared memory})"
	said "peerchat listen --loopback --account"
	[[ -z $local ]] || said "--local off"
	peerchat listen "${flags[@]}" --account "$work/$tag-bob" --into "$work/$tag-received" --accept always --reply "hello from bob" \
		>"$work/$tag-bob.log" 2>"$work/$tag-bob.err.log" &
	bob_pid=$!
	pids+=("$bob_pid")
	device=$(until_line "$work/$tag-bob.log" '^[0-9a-f]{64}$')

	say "peerchat chat (${local:-shared memory})"
	said "peerchat chat --loopback --account"
	mkfifo "$work/$tag-keys"
	peerchat chat "${flags[@]}" --account "$work/$tag-alice" "$device" <"$work/$tag-keys" >"$work/$tag-chat.log" 2>"$work/$tag-chat.err.log" &
	chat_pid=$!
	pids+=("$chat_pid")
	exec 7>"$work/$tag-keys"
	echo "hello from alice" >&7
	until_line "$work/$tag-bob.log" 'hello from alice' >/dev/null
	until_line "$work/$tag-chat.log" '^hello from bob$' >/dev/null
	exec 7>&-
	kill -INT "$chat_pid" 2>/dev/null || true
	wait "$chat_pid" || [[ $? == 130 || $? == 0 ]]

	say "peerchat send (${local:-shared memory})"
	said "peerchat send --loopback --account"
	head -c 5000000 /dev/urandom >"$work/photo.jpg"
	peerchat send "${flags[@]}" --account "$work/$tag-alice" "$device" "$work/photo.jpg" >"$work/$tag-send.log" 2>"$work/$tag-send.err.log"
	cmp "$work/photo.jpg" "$work/$tag-received/photo.jpg"
	grep -qE '^[0-9a-f]{64}  .*photo\.jpg$' "$work/$tag-send.log"

	say "peerchat doctor (${local:-shared memory})"
	said "peerchat doctor DEVICE"
	peerchat doctor "${flags[@]}" --account "$work/$tag-alice" "$device" >"$work/$tag-doctor.log" 2>"$work/$tag-doctor.err.log"
	grep -q "^reached in " "$work/$tag-doctor.log"
	case $tag in
	near) grep -q "^reached in .*shm" "$work/$tag-doctor.log" ;;
	far) grep -qE "^reached in .* direct path: (tcp|udp) host" "$work/$tag-doctor.log" ;;
	esac
	sed -n 's/^reached in/walk: reached in/p' "$work/$tag-doctor.log"

	kill "$bob_pid"
	wait "$bob_pid" && exit 1 || [[ $? == 143 ]]
done
say "done"
