#!/usr/bin/env bash
# Removes the services from this machine and everything that install.sh and they have made:
# settings, stored responses, caches and the user, too. docs/guides/services.md
set -euo pipefail
# shellcheck source=deploy/services.sh
source "$(dirname "${BASH_SOURCE[0]}")/services.sh"

usage() {
  cat <<'END'
deploy/uninstall.sh [options]               remove everything
deploy/uninstall.sh agent NAME… [options]   remove these agents

  --keep-data  leave /etc/paddler-py and /var/lib/paddler-py, and the user who owns them
  --root DIR   a folder that stands for /, for images and tests
END
}

agents=()
keep_data=""

read_arguments() {
  local names=""
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit ;;
      --keep-data) keep_data=yes ;;
      --root)
        [ $# -gt 1 ] || fail "$1 needs a value"
        use_root "$2"
        shift ;;
      -*) fail "there is no option $1; --help lists them" ;;
      agent) names=yes ;;
      *)
        [ -n "$names" ] || fail "$1: say agent NAME, or nothing to remove everything"
        agents+=("$1") ;;
    esac
    shift
  done
  [ -z "$names" ] || [ ${#agents[@]} -gt 0 ] || fail "agent: which one?"
}

# stopping drains: what a service has begun it finishes
stop() {
  say "stopping $1"
  systemd stop "$1"
  switch disable "$1"
  systemd reset-failed "$1" 2>/dev/null || true
}

remove_agent() {
  [ -e "$etc/agent-$1.env" ] || fail "there is no agent $1 here"
  stop "paddler-agent@$1.service"
  rm -rf "$etc/agent-$1.env" "${cache:?}/$1"
}

remove_programs() {
  rm -f "$units/paddler-balancer.service" "$units/paddler-agent@.service"
  rm -rf "$units/paddler-balancer.service.d" "$units/paddler-agent@.service.d"
  rm -rf "$opt" "$cache"
  if is_our_link; then rm "$link"; fi
  systemd daemon-reload
}

remove_data() {
  rm -rf "$etc" "$state"
  if grep -qs '^paddler-py:' "$root/etc/passwd"; then
    userdel ${root:+--prefix "$root"} paddler-py
  fi
  if grep -qs '^paddler-py:' "$root/etc/group"; then
    groupdel ${root:+--prefix "$root"} paddler-py
  fi
}

main() {
  local service name
  read_arguments "$@"
  locate
  check_rights
  check_place
  if [ ${#agents[@]} -gt 0 ]; then
    for name in "${agents[@]}"; do remove_agent "$name"; done
    return
  fi
  for service in $(installed_services); do stop "$service"; done
  remove_programs
  [ -n "$keep_data" ] || remove_data
  say "removed"
}

main "$@"
