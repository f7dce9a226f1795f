#!/usr/bin/env bash
# Make this folder ready to serve: Python, packages, model. Run it again at any time: it does only what is left to do.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/server_process.sh
. scripts/server_process.sh

VENV=.venv
BIN=$VENV/bin/python
LOG=setup.log
# What was installed, and which model was verified with it.
INSTALLED=$VENV/.setup-installed
VERIFIED=$VENV/.setup-verified
# PyPI's torch for Linux brings CUDA along, several GB that a machine without a GPU has no use for.
CPU_TORCH=https://download.pytorch.org/whl/cpu
# Room for the packages while they are unpacked: 1.2 GB were measured with the CPU's torch; CUDA's libraries take several
# GB more.
CPU_NEEDS_MB=2500
CUDA_NEEDS_MB=9000

usage() {
    cat <<'TEXT'
Usage: ./setup.sh [--demo] [--help]
  --demo   take the bundled checkpoint instead of a download; torch comes without CUDA where there is no GPU
Makes .venv, installs the packages, downloads the model that config.yaml names, and verifies it by analysing a frame.
Run it again at any time: it goes on where it stopped, and does nothing where nothing is to do.
Variables: PYTHON=python3.12 picks an interpreter; HF_HOME=/large/disk says where models are kept;
HF_ENDPOINT=https://hub.studio names another hub; QWEN_SERVER__MODEL__NAME=... another model.
TEXT
}

fail() { echo "ERROR: $1" >&2; exit 1; }

# Sets PYTHON to an interpreter that is new enough and can make environments.
find_python() {
    local candidate version seen=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        seen="$seen $candidate is $version;"
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || continue
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$candidate has no module venv; on Debian and Ubuntu: apt-get install python3-venv"
        PYTHON=$candidate
        echo "Python: $version ($candidate)"
        return
    done
    fail "Python 3.10 or newer is needed.${seen:- None was found.} Install one, or name it: PYTHON=python3.12 ./setup.sh"
}

# Sets TORCH to cuda or cpu.
find_gpu() {
    local gpus
    if gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null) &&
        [ -n "$gpus" ]; then
        TORCH=cuda
        echo "CUDA: $(grep -c '' <<<"$gpus") GPU(s), name, memory and driver:"
        echo "$gpus" | awk '{ print "  " $0 }'
    else
        TORCH=cpu
        echo "CUDA: no GPU is seen (nvidia-smi answers nothing); the server will run on the CPU, which is far slower"
    fi
}

install_packages() {
    local wanted
    wanted="$TORCH $(cat requirements.txt requirements.lock | cksum)"
    if [ "$(cat "$INSTALLED" 2>/dev/null)" = "$wanted" ] && "$BIN" -c 'import torch' 2>/dev/null; then
        echo "packages: installed before"
        return
    fi
    check_room
    echo "packages: installing into $VENV (some minutes the first time; details: $LOG)"
    "$BIN" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV" >"$LOG" 2>&1 || explain_pip
    case "$(cat "$INSTALLED" 2>/dev/null)" in
        "" | "$TORCH "*) ;;
        *) "$BIN" -m pip uninstall -q -y torch >>"$LOG" 2>&1 ;; # the other kind of torch would count as installed
    esac
    if [ "$TORCH" = cpu ]; then
        # Its own packages come with the rest, from the one index: asking two for each costs minutes where one is away.
        pip_install --no-deps torch --extra-index-url "$CPU_TORCH"
    fi
    pip_install -r requirements.txt
    echo "$wanted" >"$INSTALLED"
}

# The versions are always those of requirements.lock. The hashes of requirements-server.lock are not asked for: they are of
# PyPI's files, and its torch is the one with CUDA (SECURITY.md tells how to install by hash).
# Nothing is compiled here: pip would compile the thousands of files of torch and transformers, of which few are used.
pip_install() {
    "$BIN" -m pip install --disable-pip-version-check --retries 2 --no-compile -c requirements.lock "$@" >>"$LOG" 2>&1 ||
        explain_pip
}

check_room() {
    local needed=$CPU_NEEDS_MB free
    [ "$TORCH" = cpu ] || needed=$CUDA_NEEDS_MB
    [ ! -x "$BIN" ] || return 0 # some of it lies there already
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] ||
        fail "the packages need $needed MB, and the disk of this folder has $free MB free. Make room and run ./setup.sh again"
}

# One message for what pip says in many lines.
explain_pip() {
    if grep -q 'No space left on device' "$LOG"; then
        fail "the disk is full. Make room and run ./setup.sh again; it goes on where it stopped"
    elif grep -qE 'Failed to establish|Temporary failure|Name or service not known|timed out|ProxyError|unreachable' "$LOG"; then
        fail "the packages could not be fetched: no connection to the package index. Is there internet, and HTTPS_PROXY set where it needs one? Then run ./setup.sh again; it goes on where it stopped"
    fi
    tail -n 5 "$LOG" >&2
    fail "the packages could not be installed; $LOG has all that pip said. Run ./setup.sh again to go on"
}

# What torch sees can differ from what the machine has.
check_cuda() {
    [ "$TORCH" = cuda ] || return 0
    "$BIN" - <<'PYTHON'
import torch

if torch.cuda.is_available():
    print(f"torch {torch.__version__} with CUDA {torch.version.cuda} sees {torch.cuda.device_count()} GPU(s)")
else:
    why = (
        f"it was built for CUDA {torch.version.cuda}, and most often the driver is too old for that: update the driver"
        if torch.version.cuda
        else "it was built without CUDA: see which package index pip takes torch from"
    )
    print(f"WARNING: torch {torch.__version__} sees no GPU, so the server will run on the CPU; {why}")
PYTHON
}

# Name, size and time of each file of a folder. By Python: the options of stat differ between Linux and macOS.
state_of() {
    "$BIN" -c 'import os, sys
for each in sorted(os.scandir(sys.argv[1]), key=lambda each: each.name):
    print(each.name, each.stat().st_size, each.stat().st_mtime_ns)' "$1"
}

verify_model() {
    local folder wanted
    if [ "$("$BIN" -c 'import settings; print(settings.load_settings().model.engine)')" = remote ]; then
        echo "model: the endpoints have it (model.engine is remote); the server asks them when it starts"
        return
    fi
    folder=$("$BIN" model_loader.py --where)
    wanted="$(cat "$INSTALLED") $(cksum config.yaml | cut -d ' ' -f 1) $(state_of "$folder" | cksum)"
    if [ "$(cat "$VERIFIED" 2>/dev/null)" = "$wanted" ]; then
        echo "model: verified before"
        return
    fi
    echo "model: verifying it by analysing a frame"
    # Python keeps what it compiles here, so that later starts are quick, also where this variable forbids it to them.
    PYTHONDONTWRITEBYTECODE='' "$BIN" -c 'import server' || fail "a package is missing or broken; remove $VENV and run ./setup.sh again"
    PYTHONDONTWRITEBYTECODE='' "$BIN" -m scripts.verify_model || exit 1
    if [ "$demo" = no ]; then
        "$BIN" -m scripts.check_model --quick ||
            echo "WARNING: the model runs, but its answers fail the checks above (make check-model judges it wholly)"
    fi
    echo "$wanted" >"$VERIFIED"
}

demo=no
for option in "$@"; do
    case "$option" in
        --demo) demo=yes ;;
        --help | -h) usage; exit 0 ;;
        *) echo "ERROR: unknown option $option" >&2; usage >&2; exit 2 ;;
    esac
done
[ "$demo" = no ] || export QWEN_SERVER__MODEL__NAME=$BUNDLED_MODEL QWEN_SERVER__MODEL__ENGINE=local
trap 'echo "ERROR: stopped; run ./setup.sh again to go on" >&2; exit 130' INT TERM

find_python
find_gpu
install_packages
check_cuda
"$BIN" model_loader.py || exit 1
verify_model
if [ "$demo" = yes ]; then echo "ready: ./start_server.sh --demo"; else echo "ready: ./start_server.sh"; fi
