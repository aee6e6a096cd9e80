#!/usr/bin/env bash
# Installs the daemon as a systemd service on this host; `--help` says how.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/install.sh [--wheelhouse DIR] [--no-start]
       ops/install.sh --build-wheelhouse DIR
       ops/install.sh --rollback
       ops/install.sh --uninstall

As root, on a host run by systemd; running it again upgrades in place:
  1. the program into /opt/ai-ticket (a new virtual environment beside the old one)
  2. checks the conf file with the new program; if it is refused, nothing is changed
  3. the user ai-ticket, the group ai-ticket-view, /etc/ai-ticket, /var/lib/ai-ticket, the units,
     the man pages
  4. /etc/ai-ticket/ai-ticket.conf, unless there is one: yours is never touched
  5. switches to the new program: one restart, during which clients wait in the socket; if it does
     not start, the program and the units from before are put back

  --wheelhouse DIR        take all packages from DIR; no package index is asked
  --build-wheelhouse DIR  only fill DIR with all packages for --wheelhouse (no root needed; same
                          Python and machine as the host to install on)
  --no-start              do not enable and start the service at a first installation
  --rollback              go back to the program and the units from before the last upgrade
  --uninstall             stop and remove the service and the program; leaves data and says where

PYTHON=/path/to/python chooses the Python (3.11 or newer).
TEXT
}

action=install wheelhouse='' start=yes
while (($#)); do
  case $1 in
    --wheelhouse | --build-wheelhouse)
      [[ -n ${2:-} ]] || misused "$1 needs a directory"
      [[ $1 == --wheelhouse ]] || action=build
      wheelhouse=$(realpath -m -- "$2")
      shift
      ;;
    --no-start) start=no ;;
    --rollback) action=rollback ;;
    --uninstall) action=uninstall ;;
    --help | -h) help && exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done

prefix=/opt/ai-ticket
conf=/etc/ai-ticket/ai-ticket.conf
state=/var/lib/ai-ticket
units=/etc/systemd/system
backups=/var/backups/ai-ticket
completions=(/usr/local/share/bash-completion/completions/ai-ticketctl
  /usr/local/share/zsh/site-functions/_ai-ticketctl)
locks=$root/ops/requirements
commands=(ai-ticket-daemon ai-ticketctl)
base_python=${PYTHON:-python3}

say() { printf '%s\n' "$*"; }

# quietly WHAT COMMAND...: run it; its output is shown only when it fails.
quietly() {
  local what=$1 output
  shift
  output=$("$@" 2>&1) || { printf '%s\n' "$output" | tail -n 20 >&2; fail "failed: $what (its last lines are above)"; }
}

need_python() {
  "$base_python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer with its venv module is needed (Debian: apt-get install python3 python3-venv); PYTHON=... names another one"
}

version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml"; }

# ------------------------------------------------------------------------------------- wheelhouse

build_wheelhouse() {
  need_python
  mkdir -p "$wheelhouse" || fail "cannot make $wheelhouse"
  local tools
  tools=$(mktemp -d)
  # shellcheck disable=SC2064 # the directory of now
  trap "rm -rf -- '$tools'" EXIT
  say "building the wheelhouse in $wheelhouse"
  quietly "a virtual environment to build in" "$base_python" -m venv "$tools"
  local -a pip=("$tools/bin/python" -m pip --disable-pip-version-check --no-input)
  quietly "the build requirements" "${pip[@]}" install --require-hashes -r "$locks/build.lock"
  quietly "the packages" "${pip[@]}" download --require-hashes --only-binary :all: -r "$locks/runtime.lock" -d "$wheelhouse"
  rm -f "$wheelhouse"/ai_ticket_daemon-*.whl
  quietly "this package" "${pip[@]}" wheel --no-deps --no-build-isolation --no-index -w "$wheelhouse" "$root"
  say "done: copy it and this checkout to the host, and run there: ops/install.sh --wheelhouse DIR"
}

# ---------------------------------------------------------------------------------------- install

need_host() {
  [[ $(id -u) == 0 ]] || fail "run it as root"
  [[ -d /run/systemd/system ]] || fail "this host is not run by systemd"
}

# make_release: install the program into a directory of its own; sets `release`.
make_release() {
  local -a source=() own=("$root")
  release=$prefix/releases/$(version)-$(date -u +%Y%m%d%H%M%S)
  if [[ -n $wheelhouse ]]; then
    own=("$wheelhouse/ai_ticket_daemon-$(version)-"*.whl)
    [[ -e ${own[0]} ]] || fail "$wheelhouse lacks the package of version $(version); make it with --build-wheelhouse"
    source=(--no-index --find-links "$wheelhouse")
  fi
  mkdir -p "$prefix/releases"
  unfinished=$release
  quietly "the virtual environment" "$base_python" -m venv "$release"
  local -a pip=("$release/bin/python" -m pip --disable-pip-version-check --no-input --no-cache-dir)
  quietly "the required packages" "${pip[@]}" install "${source[@]}" --require-hashes -r "$locks/runtime.lock"
  if [[ -z $wheelhouse ]]; then
    quietly "the build requirements" "${pip[@]}" install --require-hashes -r "$locks/build.lock"
    source=(--no-index --no-build-isolation)
  fi
  quietly "the program" "${pip[@]}" install "${source[@]}" --no-deps "${own[@]}"
  # What else of this version belongs on the host, for a rollback to find, and for whoever reads on.
  mkdir "$release/host"
  cp -r "$root/systemd" "$root/docs" "$root/ai-ticket.conf" "$release/host/"
}

# An installation that fails or is stopped leaves no half-made program behind.
unfinished=
trap '[[ -z $unfinished ]] || rm -rf -- "$unfinished"' EXIT

# install_files RELEASE: what of it lies elsewhere on the host.
install_files() {
  local from=$1/host
  install -D -m 0644 "$from/systemd/ai-ticket.sysusers" /usr/lib/sysusers.d/ai-ticket.conf
  install -D -m 0644 "$from/systemd/ai-ticket.tmpfiles" /usr/lib/tmpfiles.d/ai-ticket.conf
  quietly "the user ai-ticket" systemd-sysusers /usr/lib/sysusers.d/ai-ticket.conf
  [[ -e $conf ]] || install -D -m 0640 -g ai-ticket "$from/ai-ticket.conf" "$conf"
  install -D -m 0644 "$from/ai-ticket.conf" "$prefix/ai-ticket.conf.default"
  quietly "the directories" systemd-tmpfiles --create /usr/lib/tmpfiles.d/ai-ticket.conf
  local command
  for command in "${commands[@]}"; do
    ln -sfn "$prefix/venv/bin/$command" "/usr/local/bin/$command"
  done
  install -D -m 0644 -t /usr/local/share/man/man1 "$from/docs/man/ai-ticketctl.1"
  install -D -m 0644 -t /usr/local/share/man/man8 "$from/docs/man/ai-ticket-daemon.8"
  install -D -m 0644 -t /usr/local/share/man/man5 "$from/docs/man/ai-ticket.conf.5"
  install -m 0644 "$from"/systemd/ai-ticket{,@}.service "$from/systemd/ai-ticket.socket" "$units/"
  if [[ -e $from/systemd/ai-ticket-backup.timer ]]; then # a release from before has none
    install -m 0644 "$from"/systemd/ai-ticket-backup.{service,timer} "$units/"
  fi
  completion "$1" bash "${completions[0]}"
  completion "$1" zsh "${completions[1]}"
  if [[ -e $from/systemd/ai-ticket.catalog ]]; then
    install -D -m 0644 "$from/systemd/ai-ticket.catalog" /usr/lib/systemd/catalog/ai-ticket.catalog
    quietly "the journal's catalog" journalctl --update-catalog
  fi
}

# completion RELEASE SHELL FILE: a release that has none is no reason to stop halfway.
completion() {
  local said
  if said=$("$1/bin/ai-ticketctl" --print-completion "$2" 2>/dev/null); then
    install -D -m 0644 /dev/stdin "$3" <<<"$said"
  else
    rm -f "$3"
  fi
}

# check_conf RELEASE: what that program says of the conf file, before anything is touched.
check_conf() {
  local said
  if [[ -e $conf ]] && ! said=$("$1/bin/ai-ticket-daemon" --config "$conf" --check-config 2>&1); then
    printf '%s\n' "$said" >&2
    fail "$conf is refused by ${1##*/} (its mistakes are above); nothing was changed, and what runs goes on"
  fi
}

# switch_to RELEASE: by one rename, so that no moment is without a program.
switch_to() {
  ln -sfn "$1" "$prefix/venv.new"
  mv -T "$prefix/venv.new" "$prefix/venv"
  unfinished=
}

# put_in_place RELEASE: from now on a start takes it, with the units it came with.
put_in_place() {
  install_files "$1"
  switch_to "$1"
  systemctl daemon-reload
}

# restart UNIT...: if there are any; also those that have crashed too often to be started again.
restart() {
  (($# > 0)) || return 0
  systemctl reset-failed "$@" 2>/dev/null || true
  systemctl restart "$@"
}

# services STATE,...: print the units of the daemon that are in one of these states.
services() {
  systemctl list-units --plain --no-legend --state="$1" ai-ticket.service 'ai-ticket@*.service' | awk '{ print $1 }'
}

# other_releases RELEASE...: print all but these, the newest first.
other_releases() {
  find "$prefix/releases" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | cut -d' ' -f2- |
    grep -vxFf <(printf '%s\n' "$@") || true
}

install_service() {
  need_host
  need_python
  local first=yes
  [[ ! -e $prefix/venv ]] || first=no
  say "installing ai-ticket-daemon $(version) into $prefix"
  make_release
  check_conf "$release"
  local before
  local -a running
  before=$(readlink "$prefix/venv" || true)
  mapfile -t running < <(services active,activating,reloading)
  if [[ $first == no ]]; then
    put_in_place "$release"
    if ! restart "${running[@]}"; then
      put_in_place "$before"
      unfinished=$release
      restart "${running[@]}" ||
        fail "neither version $(version) nor the one before starts: journalctl -u ai-ticket says why"
      fail "version $(version) did not start (journalctl -u ai-ticket says why); the one before is back in place"
    fi
    other_releases "$release" "$before" | xargs -r -d '\n' rm -rf --
    say "upgraded; $conf is as it was, the defaults of this version are in $prefix/ai-ticket.conf.default"
    return
  fi
  put_in_place "$release"
  if [[ $start == yes ]]; then
    quietly "the start (journalctl -u ai-ticket says why)" systemctl enable --now ai-ticket.socket ai-ticket.service
    say "installed and started; name your servers in $conf, then: systemctl reload ai-ticket"
  else
    say "installed; edit $conf, then: systemctl enable --now ai-ticket.socket ai-ticket.service"
  fi
}

# --------------------------------------------------------------------------------------- rollback

roll_back() {
  need_host
  local current before
  local -a running
  current=$(readlink "$prefix/venv") || fail "nothing is installed in $prefix"
  before=$(other_releases "$current" | head -n 1)
  [[ -n $before ]] || fail "there is no other program in $prefix/releases; install it from its checkout"
  check_conf "$before"
  # What has failed is the likely reason for this, and is to run again.
  mapfile -t running < <(services active,activating,reloading,failed)
  put_in_place "$before"
  restart "${running[@]}" ||
    fail "${before##*/} is in place and does not start: journalctl -u ai-ticket says why"
  say "${before##*/} is in place again; $conf is as it was"
}

# -------------------------------------------------------------------------------------- uninstall

uninstall() {
  need_host
  local -a present=() instances drop_ins left=("$state" /var/cache/ai-ticket /etc/ai-ticket)
  local unit
  for unit in ai-ticket.socket ai-ticket.service ai-ticket-backup.timer; do
    [[ ! -e $units/$unit ]] || present+=("$unit")
  done
  mapfile -t instances < <(systemctl list-units --all --plain --no-legend 'ai-ticket@*.service' | awk '{ print $1 }')
  ((${#present[@]} == 0)) || quietly "the stop" systemctl disable --now "${present[@]}" "${instances[@]}"
  rm -f "$units"/ai-ticket{,@}.service "$units/ai-ticket.socket" \
    "$units"/ai-ticket-backup.{service,timer} "${completions[@]}" \
    /var/lib/systemd/timers/stamp-ai-ticket-backup.timer \
    /usr/lib/sysusers.d/ai-ticket.conf /usr/lib/tmpfiles.d/ai-ticket.conf
  if [[ -e /usr/lib/systemd/catalog/ai-ticket.catalog ]]; then
    rm -f /usr/lib/systemd/catalog/ai-ticket.catalog
    quietly "the journal's catalog" journalctl --update-catalog
  fi
  rm -f "${commands[@]/#//usr/local/bin/}" \
    /usr/local/share/man/man1/ai-ticketctl.1 /usr/local/share/man/man8/ai-ticket-daemon.8 \
    /usr/local/share/man/man5/ai-ticket.conf.5
  rm -rf -- "$prefix" /run/ai-ticket-view
  systemctl daemon-reload
  systemctl reset-failed 'ai-ticket*' 2>/dev/null || true
  mapfile -t drop_ins < <(find "$units" -maxdepth 1 -name 'ai-ticket*.d' -type d | sort)
  say "removed the service and the program. Left, with all events and settings: $state, /etc/ai-ticket"
  if ((${#drop_ins[@]} > 0)); then
    say "Left, too, your changes by systemctl edit: ${drop_ins[*]}"
    left+=("${drop_ins[@]}")
  fi
  if [[ -d $backups ]]; then
    say "Left, too, the nightly copies: $backups"
    left+=("$backups")
  fi
  say "Left, too: the user ai-ticket, who owns them, and the group ai-ticket-view. To remove all of it:"
  say "  rm -rf ${left[*]} && userdel ai-ticket && groupdel ai-ticket-view"
}

case $action in
  build) build_wheelhouse ;;
  install) install_service ;;
  rollback) roll_back ;;
  uninstall) uninstall ;;
esac
