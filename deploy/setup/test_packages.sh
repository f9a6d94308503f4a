#!/usr/bin/env bash
# What the tests use beside Python packages: programs, installed only where they are missing and
# apt-get works, OpenAI's client for Node, and what looks for barriers in pages. With `web`: only
# what `make check-web` needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

install_programs() {
  local missing=() sudo="" program
  declare -A package_of=([chromium]=chromium [curl]=curl [node]=nodejs [npm]=npm [setpriv]=util-linux
    [systemd-analyze]=systemd [systemd-sysusers]=systemd [userdel]=passwd)
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
  done
  [ ${#missing[@]} -eq 0 ] && return

  if ! command -v apt-get >/dev/null; then
    echo "The tests need: ${missing[*]}. Install them with your package manager." >&2
    exit 1
  fi
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  echo "[setup] installing ${missing[*]}" >&2
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

install_node_packages() {
  local folder=$1 what=$2
  local stamp=$folder/node_modules/.package-lock.json
  [ "$stamp" -nt "$folder/package-lock.json" ] && return
  echo "[setup] installing $what" >&2
  (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts)
}

if [ "${1:-}" = web ]; then
  install_programs node npm
  install_node_packages tests/web "what checks the dashboard's files"
  exit
fi

install_programs chromium curl node npm setpriv systemd-analyze systemd-sysusers userdel
install_node_packages tests/end_to_end/node "OpenAI's client for Node"
install_node_packages tests/browser/node "axe for pages"
