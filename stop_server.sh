#!/usr/bin/env bash
# Stop the server that start_server.sh started: accepted work is finished first.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/server_process.sh
. scripts/server_process.sh

usage() {
    echo "Usage: ./stop_server.sh [--help]"
    echo "Lets accepted work finish, then stops the server that ./start_server.sh started."
}

case "${1:-}" in
    "") ;;
    --demo) ;; # there is one server for both, so it is accepted and changes nothing
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

pid=$(running_server) || { echo "no server is running that was started here"; rm -f "$PID_FILE"; exit 0; }
echo "stopping the server (pid $pid): accepted work is finished first"
kill -TERM "$pid"
for _ in $(seq 600); do
    running_server >/dev/null || { rm -f "$PID_FILE"; echo "stopped"; exit 0; }
    sleep 0.1
done
echo "ERROR: the server still had work after 60 s; it goes on draining. Run ./stop_server.sh again to wait on." >&2
exit 1
