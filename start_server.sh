#!/usr/bin/env bash
# Start the server in the background and wait until it is healthy, or say why it is not.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/server_process.sh
. scripts/server_process.sh

LOG=qwen_server.log
PYTHON=.venv/bin/python

usage() {
    cat <<'TEXT'
Usage: ./start_server.sh [--demo] [--foreground] [--help]
  --demo        serve the bundled small checkpoint (models/README.md says what it can do); needs no download
  --foreground  stay in front and log to the terminal
Settings: config.yaml, or variables like QWEN_SERVER__SERVER__PORT=8001.
TEXT
}

fail() { echo "ERROR: $1" >&2; exit 1; }

# Whether the server answers that it is healthy, and it is ours: before it has the port, another may answer there.
healthy() { grep -q '^listening$' "$report" && "$PYTHON" -m scripts.healthy "$address"; }

# The server's error; its last words where it ended without one.
explain_end() {
    grep -v '^listening$' "$report" >&2 ||
        echo "ERROR: the server ended: $(tail -n +"$((before + 1))" "$LOG" | tail -n 1). See $LOG; after an update of the code, run ./setup.sh" >&2
}

foreground=no
for option in "$@"; do
    case "$option" in
        --demo) export QWEN_SERVER__MODEL__NAME=$BUNDLED_MODEL QWEN_SERVER__MODEL__ENGINE=local ;;
        --foreground) foreground=yes ;;
        --help | -h) usage; exit 0 ;;
        *) echo "ERROR: unknown option $option" >&2; usage >&2; exit 2 ;;
    esac
done

[ -x "$PYTHON" ] || fail "there is no .venv here yet; run: ./setup.sh"
lock_start "$PYTHON"
if pid=$(running_server); then
    read -r address _ <<<"$("$PYTHON" -m settings 2>/dev/null || true)"
    echo "the server is running already (pid $pid)${address:+: $address (try $address/docs)}; ./stop_server.sh stops it"
    exit 0
fi
settings=$("$PYTHON" -m settings) || exit 2
read -r address drain <<<"$settings"
if [ "$foreground" = yes ]; then
    remember_server $$ "$drain" # exec keeps the pid
    exec "$PYTHON" server.py 9>&-
fi

report=$(mktemp "${TMPDIR:-/tmp}/qwen-server.XXXXXX")
trap 'rm -f "$report"' EXIT
[ -f "$LOG" ] || : > "$LOG"
before=$(wc -l < "$LOG")
QWEN_SERVER_REPORT=$report nohup "$PYTHON" server.py >> "$LOG" 2>&1 < /dev/null 9>&- &
pid=$!
remember_server "$pid" "$drain"
exec 9>&-
trap 'kill -TERM "$pid" 2>/dev/null; forget_server "$pid"; exit 130' INT TERM

echo "starting the server (pid $pid, log: $LOG)"
until healthy; do
    if ! kill -0 "$pid" 2>/dev/null; then
        forget_server "$pid"
        wait "$pid" || code=$?
        explain_end
        exit "${code:-1}"
    fi
    sleep 0.2
done
echo "healthy: $address (try $address/docs); ./stop_server.sh stops it"
