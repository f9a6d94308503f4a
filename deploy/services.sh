# What install.sh and uninstall.sh have in common: where everything is, and the way to systemd.
# Sourced by them; `root` is a folder that stands for `/`, empty for the machine itself.
# shellcheck shell=bash

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=""

locate() {
  opt=$root/opt/paddler-py
  etc=$root/etc/paddler-py
  units=$root/etc/systemd/system
  state=$root/var/lib/paddler-py
  cache=$root/var/cache/paddler-py
  link=$root/usr/local/bin/paddler-py
}

say() { echo "paddler-py: $*"; }

fail() {
  echo "paddler-py: $*" >&2
  exit 1
}

use_root() {
  [ -d "$1" ] || fail "--root $1: there is no such folder; make it first"
  root=$(cd "$1" && pwd)
  [ "$root" != / ] || root=""
}

check_rights() {
  [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "this changes the machine; run it with sudo"
  [ -n "$root" ] || [ -d /run/systemd/system ] ||
    fail "systemd does not run here; docs/guides/running.md starts the programs by hand"
}

is_our_link() { [ "$(readlink "$link")" = /opt/paddler-py/current/bin/paddler-py ]; }

# somebody's own environment would be removed with everything else
check_place() {
  [ ! -e "$opt/pyvenv.cfg" ] || fail "$opt is a virtual environment of your own; move it elsewhere"
}

# the running systemd where there is one, else nobody
systemd() {
  [ ! -d "$root/run/systemd/system" ] || systemctl "$@"
}

# what a start of the machine shall start: files only, so that it works in a --root, too
switch() {
  if [ -d "$root/run/systemd/system" ]; then
    systemctl --quiet "$@"
  else
    systemctl --quiet --root="$root" "$@"
  fi
}

installed_agents() {
  local file
  for file in "$etc"/agent-*.env; do
    [ ! -e "$file" ] || basename "$file" .env | sed 's/^agent-//'
  done
}

has_balancer() { [ -e "$units/paddler-balancer.service" ]; }

# every service of this machine: agents first, for the balancer finds others for their work
installed_services() {
  local name
  for name in $(installed_agents); do echo "paddler-agent@$name.service"; done
  ! has_balancer || echo paddler-balancer.service
}
