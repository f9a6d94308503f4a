#!/usr/bin/env bash
# Installs the balancer and agents as systemd services, or upgrades what is installed, one service
# after the other. Running it again changes nothing but what is new. docs/guides/services.md
set -euo pipefail
# shellcheck source=deploy/services.sh
source "$(dirname "${BASH_SOURCE[0]}")/services.sh"
umask 022

usage() {
  cat <<'END'
deploy/install.sh [balancer] [agent NAME…] [options]   install
deploy/install.sh upgrade [options]                    bring what is installed to this version

  --balancer HOST:PORT  the balancer's management port, for the agents that are named
  --model FILE.gguf     the model of the agents that are named
  --wheels DIR          take every package from there and nothing from the network
  --python PROGRAM      the Python to use, 3.11 or newer (python3)
  --root DIR            a folder that stands for /, for images and tests

CMAKE_ARGS says how llama.cpp is built (-DGGML_CUDA=ON: for NVIDIA's GPUs); without it, as before.
END
}

balancer=""
agents=()
started=() # by this run
moved=()   # to the new release, by this run
upgrade=""
address=""
model=""
wheels=""
python=python3

read_arguments() {
  local names=""
  [ $# -gt 0 ] || { usage; exit 2; }
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit ;;
      --balancer | --model | --wheels | --python | --root)
        [ $# -gt 1 ] || fail "$1 needs a value"
        case $1 in
          --balancer) address=$2 ;;
          --model) model=$2 ;;
          --wheels) wheels=$2 ;;
          --python) python=$2 ;;
          --root) use_root "$2" ;;
        esac
        shift ;;
      -*) fail "there is no option $1; --help lists them" ;;
      balancer) balancer=yes ;;
      agent) names=yes ;;
      upgrade) upgrade=yes ;;
      *)
        [ -n "$names" ] || fail "$1: say balancer, agent NAME or upgrade"
        agents+=("$1") ;;
    esac
    shift
  done
  [ -z "$names" ] || [ ${#agents[@]} -gt 0 ] || fail "agent: give it a name, as in: agent gpu0"
  [ -z "$upgrade" ] || [ -z "$balancer$names" ] || fail "upgrade goes alone"
}

check_arguments() {
  local name
  for name in "${agents[@]}"; do
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$ ]] ||
      fail "$name cannot name an agent; allowed: up to 32 letters, digits, dots, dashes"
  done
  case $model in
    "" | demo) ;;
    /home/* | /root/* | /run/user/*) fail "$model: services see no homes; move it to /srv/models" ;;
    /*) [ -r "$root$model" ] || fail "$model: there is no such file" ;;
    *) fail "$model: give the whole path, from / on" ;;
  esac
  if [ -n "$wheels" ]; then
    wheels=$(cd "$wheels" 2>/dev/null && pwd) || fail "--wheels: no such folder"
    compgen -G "$wheels/paddler_py-*.whl" >/dev/null ||
      fail "--wheels $wheels: there is no paddler_py-….whl; docs/guides/services.md makes such a folder"
  fi
  if [ -n "$upgrade" ]; then
    [ -n "$(installed_services)" ] || fail "nothing is installed that could be upgraded"
  fi
}

check_machine() {
  check_rights
  command -v systemctl systemd-sysusers >/dev/null || fail "systemd is missing: apt-get install systemd"
  command -v "$python" >/dev/null ||
    fail "$python is missing: apt-get install python3 python3-venv, or --python PROGRAM"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, $python is $("$python" -V); see --python"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "Python's venv module is missing: apt-get install python3-venv"
  check_python_can_be_seen
  if needs_llama && command -v nvidia-smi >/dev/null && [[ ${CMAKE_ARGS:-} != *CUDA=* ]]; then
    say "note: this machine has an NVIDIA GPU; CMAKE_ARGS=-DGGML_CUDA=ON builds llama.cpp for it"
  fi
}

# a virtual environment needs the Python that it was made with
check_python_can_be_seen() {
  local home
  if [ -n "$root" ]; then return; fi
  home=$("$python" -c 'import sys; print(sys.base_prefix)')
  case $home in
    /home/* | /root/* | /run/user/*)
      fail "$python is in $home, and services see no homes; try --python /usr/bin/python3" ;;
  esac
}

# --- a release: one virtual environment, made whole and never changed ---

has_agents() { [ ${#agents[@]} -gt 0 ] || [ -n "$(installed_agents)" ]; }

needs_llama() { [ -z "$wheels" ] && has_agents; }

extras() {
  local names=()
  if [ -n "$balancer" ] || has_balancer; then names+=(balancer); fi
  if has_agents; then
    names+=(agent)
    if command -v nvidia-smi >/dev/null; then names+=(gpu); fi # how busy NVIDIA's GPUs are
  fi
  names+=(top)
  (IFS=,; echo "${names[*]}")
}

# the same sources, extras and build give the same name, so that nothing is done twice
release_name() {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/pyproject.toml")
  if [ -n "$wheels" ]; then
    version=$(basename "$(ls "$wheels"/paddler_py-*.whl | tail -n 1)" | cut -d- -f2)
  fi
  {
    echo "$(extras) ${CMAKE_ARGS:-} $("$python" -V)"
    if [ -n "$wheels" ]; then cat "$wheels"/*.whl; else sources; fi
  } | sha256sum | sed "s/^\(.\{12\}\).*/$version-\1/"
}

sources() {
  cd "$project"
  find pyproject.toml paddler_py.py protocol balancer agent -type f -not -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum
}

make_release() {
  release=$opt/releases/$(release_name)
  if [ -e "$release/complete" ]; then
    say "$(basename "$release") is here already"
    return
  fi
  say "installing $(basename "$release")"
  rm -rf "$release"
  mkdir -p "$opt/releases"
  "$python" -m venv "$release"
  # Python 3.11 brings one of 2022, whose faults are known; nothing here needs any
  "$release/bin/python" -m pip --disable-pip-version-check uninstall -qq --yes setuptools
  if [ -n "$wheels" ]; then
    pip_install --no-index --find-links "$wheels" "paddler-py[$(extras)]"
  elif has_agents; then
    pip_install "$(llama_wheel)" "$project[$(extras)]"
  else
    pip_install "$project[$(extras)]"
  fi
  echo "${CMAKE_ARGS:-}" >"$release/cmake_args"
  touch "$release/complete"
}

# what is kept for the next time is under /opt, where it goes with everything else
pip_install() {
  XDG_CACHE_HOME=$opt/cache "$release/bin/python" -m pip \
    --disable-pip-version-check --no-input install --quiet "$@" || {
    [ -z "$wheels" ] || fail "$wheels lacks a package (see above); it needs all of '.[$(extras)]'"
    fail "the packages could not be installed; what pip says is above"
  }
}

llama_wheel() {
  local requirement
  requirement=$(sed -n 's/^LLAMA := //p' "$project/Makefile")
  XDG_CACHE_HOME=$opt/cache "$python" "$project/deploy/setup/llama_wheel.py" "$requirement" ||
    fail "llama.cpp could not be built; docs/guides/building.md has what it needs"
}

# an upgrade must not lose a GPU because nobody repeated what was said at the installation
remember_build() {
  if [ -z "${CMAKE_ARGS+set}" ] && [ -e "$opt/current/cmake_args" ]; then
    CMAKE_ARGS=$(cat "$opt/current/cmake_args")
    export CMAKE_ARGS
    [ -z "$CMAKE_ARGS" ] || say "CMAKE_ARGS is as it was before: $CMAKE_ARGS"
  fi
}

use_release() {
  ln -sfn "$1" "$opt/next"
  mv -T "$opt/next" "$opt/current"
}

# the command for people, where no other one has its name
link_command() {
  if [ ! -d "$(dirname "$link")" ] || is_our_link; then
    return
  elif [ -e "$link" ] || [ -L "$link" ]; then
    say "${link#"$root"} is not ours and stays; ours is /opt/paddler-py/current/bin/paddler-py"
  else
    ln -s /opt/paddler-py/current/bin/paddler-py "$link"
  fi
}

# --- the machine around it ---

make_user() {
  local group
  if [ "$(id -u)" -ne 0 ]; then # only in a --root
    say "the user paddler-py is not made, since this does not run as root"
    return
  fi
  {
    cat "$project/deploy/systemd/sysusers.conf"
    for group in video render; do # who may use GPUs, where not everybody may
      if grep -qs "^$group:" "$root/etc/group"; then echo "m paddler-py $group"; fi
    done
  } | systemd-sysusers ${root:+--root="$root"} - || fail "the user paddler-py could not be made"
}

# what root may read the services may not
check_model_can_be_read() {
  if [ -n "$root" ] || [ "${model:0:1}" != / ]; then return; fi
  setpriv --reuid=paddler-py --regid=paddler-py --init-groups test -r "$model" ||
    fail "the user paddler-py may not read $model: chmod a+r it, and a+x the folders above it"
}

write_units() {
  local unit names=()
  if [ -n "$balancer" ] || has_balancer; then names+=(paddler-balancer.service); fi
  if has_agents; then names+=(paddler-agent@.service); fi
  for unit in "${names[@]}"; do
    install -D -m 644 "$project/deploy/systemd/$unit" "$units/$unit"
    if [ "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
      install -D -m 644 "$project/deploy/systemd/backoff.conf" "$units/$unit.d/backoff.conf"
    fi
  done
}

write_settings() {
  mkdir -p "$etc"
  if [ -n "$balancer" ]; then
    new_file 644 "$etc/paddler.yaml" <<'END'
# Settings of the balancer (docs/reference/settings.md), read again when this file changes or at
# systemctl reload paddler-balancer. Secrets belong into balancer.env.
data_dir: /var/lib/paddler-py/balancer
END
    new_file 600 "$etc/balancer.env" <<'END'
# Variables of the balancer (PADDLER_…), read when it starts. They win over paddler.yaml.
END
  fi
  for name in "${agents[@]}"; do
    if [ -e "$etc/agent-$name.env" ] && [ -n "$address$model" ]; then
      say "--balancer and --model are for new agents: agent-$name.env says what $name does"
    fi
    new_file 600 "$etc/agent-$name.env" <<END
# Variables of this agent (PADDLER_AGENT_…: docs/reference/settings.md), read when it starts.
PADDLER_AGENT_BALANCER=$address
PADDLER_AGENT_MODEL=$model
# which GPU, where several agents share a host: CUDA_VISIBLE_DEVICES=0
END
  done
}

# what people have written stays
new_file() {
  if [ -e "$2" ]; then
    say "${2#"$root"} is kept as it is"
    cat >/dev/null
  else
    install -m "$1" /dev/stdin "$2"
  fi
}

is_complete() {
  grep -q '^PADDLER_AGENT_BALANCER=.' "$1" && grep -q '^PADDLER_AGENT_MODEL=.' "$1"
}

# an agent is not waited for: it is ready once it has loaded its model and found its balancer
start() {
  switch enable "$1"
  if ! runs "$1"; then started+=("$1"); fi
  systemd start "${@:2}" "$1" || fail "$1 did not become ready; see journalctl -u $1"
  say "$1 is enabled; systemctl status $1 says how it is"
}

start_all() {
  local name
  systemd daemon-reload
  if [ -n "$balancer" ]; then start paddler-balancer.service; fi
  for name in "${agents[@]}"; do
    if is_complete "$etc/agent-$name.env"; then
      start "paddler-agent@$name.service" --no-block
    else
      say "fill in /etc/paddler-py/agent-$name.env, then: systemctl enable --now paddler-agent@$name"
    fi
  done
}

# --- one after the other ---

restart_each() {
  local service before=$1
  systemd daemon-reload
  for service in $(installed_services); do
    if was_started "$service"; then continue; fi
    case $(state_of "$service") in
      active | reloading)
        if runs_from_release "$service"; then continue; fi
        say "restarting $service and waiting until it is ready"
        systemd restart "$service" || go_back "$service" "$before"
        moved+=("$service") ;;
      activating)
        say "restarting $service, which was not ready yet"
        systemd restart --no-block "$service" ;;
      *) say "$service does not run and is left so" ;;
    esac
  done
}

runs() { [[ $(state_of "$1") =~ ^(active|reloading|activating)$ ]]; }

state_of() { systemd show --property=ActiveState --value "$1"; }

was_started() { [[ " ${started[*]} " == *" $1 "* ]]; }

# the first word of its command line, since an upgrade may have been cut off after any service
runs_from_release() {
  local process program=""
  process=$(systemd show --property=MainPID --value "$1")
  if [ -r "/proc/$process/cmdline" ]; then
    IFS= read -r -d '' program <"/proc/$process/cmdline" || true
  fi
  [[ $program == "$release"/* ]]
}

# all of them, so that one machine never runs two releases
go_back() {
  local service
  use_release "$2"
  rm "$opt/former"
  systemd restart --no-block "$1" || true
  for service in "${moved[@]}"; do
    say "restarting $service on the former release"
    systemd restart "$service" || true
  done
  fail "$1 did not become ready on the new release, so the former one is back; see journalctl -u $1"
}

remove_others() {
  local other
  for other in "$opt"/releases/*; do
    [ "$other" = "$release" ] || rm -rf "$other"
  done
}

main() {
  local before
  read_arguments "$@"
  locate
  check_arguments
  check_place
  remember_build
  check_machine
  # an upgrade that was cut off has left word of what it came from
  before=$(readlink "$opt/former" || readlink "$opt/current" || true)
  make_release
  make_user
  check_model_can_be_read
  write_units
  write_settings
  if [ -n "$before" ]; then ln -sfn "$before" "$opt/former"; fi
  use_release "$release"
  link_command
  start_all
  if [ -n "$before" ]; then restart_each "$before"; fi
  rm -f "$opt/former"
  remove_others
  say "done"
}

main "$@"
