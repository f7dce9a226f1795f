#!/usr/bin/env bash
# Which server was started here: shared by start_server.sh and stop_server.sh.
# The pid file holds the pid and the moment of its start, so that a pid that was given away again is never touched; and
# the seconds that a stop of this server may take.

PID_FILE=.qwen_server.pid
LOCK_FILE=.qwen_server.lock
# The small checkpoint in this folder that --demo serves.
# shellcheck disable=SC2034 # read by the scripts that source this
BUNDLED_MODEL=models/qwen2-vl-film-tiny

# When a process was started, as ps tells it; nothing when there is none.
started_at() { LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null; }

# Remember a server, and its server.drain_timeout.
remember_server() { printf '%s\n%s\n%s\n' "$1" "$(started_at "$1")" "$2" > "$PID_FILE"; }

# Forget the server with this pid. A file that names another one is left: that server was started meanwhile.
forget_server() { [ "$(head -n 1 "$PID_FILE" 2>/dev/null)" != "$1" ] || rm -f "$PID_FILE"; }

# Wait until no other script is starting a server here; file 9 holds the lock until it is closed. Python locks it, because
# macOS has no flock.
lock_start() {
    exec 9>"$LOCK_FILE"
    "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

# The server.drain_timeout of the server that was started here; the default where its version did not tell.
drain_timeout() { sed -n '3p' "$PID_FILE" | grep . || echo 50; }

# Print the pid of the server that was started here; fails when it does not run.
running_server() {
    [ -f "$PID_FILE" ] || return 1
    local pid moment
    { read -r pid && IFS= read -r moment; } < "$PID_FILE" || return 1
    [ -n "$moment" ] && [ "$(started_at "$pid")" = "$moment" ] || return 1
    # A child that has ended and was not waited for is no server any more.
    case "$(ps -o stat= -p "$pid")" in Z*) return 1 ;; esac
    echo "$pid"
}
