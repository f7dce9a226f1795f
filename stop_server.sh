#!/usr/bin/env bash
# Stop the server that start_server.sh started: accepted work is finished first.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/server_process.sh
. scripts/server_process.sh

usage() {
    cat <<'TEXT'
Usage: ./stop_server.sh [--demo] [--help]
  --demo  changes nothing: there is one server, with --demo or without
Lets accepted work finish, then stops the server that ./start_server.sh started.
TEXT
}

for option in "$@"; do
    case "$option" in
        --demo) ;;
        --help | -h) usage; exit 0 ;;
        *) echo "ERROR: unknown option $option" >&2; usage >&2; exit 2 ;;
    esac
done

# A server that is out of time still tells its clients so, and ends its engines.
LAST_SECONDS=15

pid=$(running_server) || { echo "no server is running that was started here"; exit 0; }
patience=$(($(drain_timeout) + LAST_SECONDS))
echo "stopping the server (pid $pid): accepted work is finished first, for up to $(drain_timeout) s (server.drain_timeout)"
kill -TERM "$pid"
SECONDS=0
while [ "$SECONDS" -lt "$patience" ]; do
    [ "$(running_server)" = "$pid" ] || { forget_server "$pid"; echo "stopped"; exit 0; }
    sleep 0.1
done
echo "ERROR: the server runs on after $patience s; run ./stop_server.sh again to wait on, or end it: kill -KILL $pid" >&2
exit 1
