#!/usr/bin/env bash
# Makes chat.svg: the chat in a real terminal (tmux), with the contacts and
# messages that its tests use, drawn by tools/screenshot. Needs tmux and Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
tmux() { command tmux -S "$work/s" -f /dev/null "$@"; }
trap 'tmux kill-server 2>/dev/null || true; rm -rf "$work"' EXIT
export LC_ALL=C.UTF-8 TERM=xterm-256color
go test -c -o "$work/chat" ./cmd/peerchat/internal/chatui
go build -C tools -o "$work/screenshot" ./screenshot
tmux new-session -d -x 92 -y 22 "env CHATUI_PROGRAM=1 $work/chat -test.run='^\$'"
awaits() {
	for _ in $(seq 200); do
		tmux capture-pane -p | grep -qF "$1" && return
		sleep 0.05
	done
	echo "chat.sh: no “$1” on the screen" >&2
	exit 1
}
awaits "running it now"
tmux send-keys -l "it works; the pier one is my favourite too"
awaits "favourite too"
tmux capture-pane -e -p | "$work/screenshot" --title "peerchat: contacts on the left, a conversation on the right" >"${1:-docs/images/chat.svg}"
