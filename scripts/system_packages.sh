#!/usr/bin/env bash
# Install what some tests need beside Python, on Debian and Ubuntu: Chromium shows the pages, espeak-ng speaks. Without them
# those tests are skipped. Only what is missing is installed, and only as root: the script never asks for a password.
set -euo pipefail

# Command and package, one pair a line.
WANTED='chromium chromium
espeak-ng espeak-ng'

usage() {
    echo "Usage: scripts/system_packages.sh [--help]"
    echo "Installs Chromium and espeak-ng with apt where they are missing. Needs root."
}

is_there() { command -v "$1" >/dev/null || { [ "$1" = chromium ] && command -v chromium-browser >/dev/null; }; }

missing() {
    local command package
    while read -r command package; do
        is_there "$command" || echo "$package"
    done <<<"$WANTED"
}

case "${1:-}" in
    "") ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

packages=()
while read -r package; do packages+=("$package"); done < <(missing)
if [ "${#packages[@]}" = 0 ]; then
    echo "system packages: all there"
    exit 0
fi
echo "system packages: missing: ${packages[*]}"
if ! command -v apt-get >/dev/null; then
    echo "ERROR: there is no apt-get here; install them with your system's own tool" >&2
    exit 1
elif [ "$(id -u)" != 0 ]; then
    echo "ERROR: only root can install them: sudo scripts/system_packages.sh" >&2
    exit 1
fi
echo "system packages: installing them with apt-get"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Ubuntu gives Chromium another name.
apt-cache show chromium >/dev/null 2>&1 || packages=("${packages[@]/%chromium/chromium-browser}")
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
echo "system packages: installed"
