#!/usr/bin/env bash
# Builds a Debian package of this checkout; `--help` says how.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/build-deb.sh [--wheelhouse DIR] [--output DIR]

Builds ai-ticket-daemon_VERSION_ARCH.deb with Debian's own tools: the program and all packages it
needs under /usr/lib/ai-ticket, the units, the manuals, /etc/ai-ticket/ai-ticket.conf. It fits
hosts of the same architecture whose Python is the one used here.

  --wheelhouse DIR  take all packages from DIR (ops/install.sh --build-wheelhouse); without it, a
                    wheelhouse is built first
  --output DIR      where the package goes (default: .cache/deb)

Needs build-essential and debhelper. PYTHON=/path/to/python chooses the Python.
TEXT
}

wheelhouse='' output=$root/.cache/deb
while (($#)); do
  case $1 in
    --wheelhouse | --output)
      [[ -n ${2:-} ]] || misused "$1 needs a directory"
      printf -v "${1#--}" '%s' "$(realpath -m -- "$2")"
      shift
      ;;
    --help | -h) help && exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done

for tool in dpkg-buildpackage dh /usr/share/build-essential/list; do
  [[ -e $tool ]] || command -v "$tool" >/dev/null ||
    fail "$tool is missing (Debian: apt-get install build-essential debhelper)"
done

base_python=${PYTHON:-python3}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
tree=$work/ai-ticket-daemon-$version
log=$work/log

# logged WHAT COMMAND...: run it; its output is shown only when it fails.
logged() {
  local what=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $what (its last lines are above)"; }
}

if [[ -z $wheelhouse ]]; then
  wheelhouse=$work/wheelhouse
  logged "the wheelhouse" env PYTHON="$base_python" "$root/ops/install.sh" --build-wheelhouse "$wheelhouse"
fi

mkdir -p "$tree" "$output"
cp -r "$root/systemd" "$root/ai-ticket.conf" "$tree/"
cp -r "$root/docs" "$tree/docs"
mkdir "$tree/ops" && cp -r "$root/ops/"{prometheus,alertmanager,grafana} "$tree/ops/"
cp -r "$root/ops/debian" "$tree/debian"
cp "$root/CHANGELOG.md" "$tree/debian/NEWS.md"
# The units of a package name its own places.
sed -i 's|/opt/ai-ticket/venv/bin/ai-ticketctl|/usr/bin/ai-ticketctl|; s|/opt/ai-ticket/venv/bin/|/usr/sbin/|' \
  "$tree"/systemd/*.service
for kind in sysusers tmpfiles; do
  mv "$tree/systemd/ai-ticket.$kind" "$tree/debian/$kind"
done

python_minor=$("$base_python" -c 'import sys; print(sys.version_info.minor)')
export PYTHON_DEPENDS="python3:any (>= 3.$python_minor), python3:any (<< 3.$((python_minor + 1)))"
cat >"$tree/debian/changelog" <<TEXT
ai-ticket-daemon ($version) unstable; urgency=medium

  * See /usr/share/doc/ai-ticket-daemon/NEWS.md.

 -- ai-ticket-daemon maintainers <maintainers@ai-ticket-daemon.example.org>  $(date -R -r "$root/CHANGELOG.md")
TEXT

logged "a virtual environment to install with" "$base_python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --no-input install --no-index
  --find-links "$wheelhouse" --target "$tree/site" --no-compile)
logged "the required packages" "${pip[@]}" --require-hashes -r "$root/ops/requirements/runtime.lock"
logged "the program" "${pip[@]}" --no-deps "$wheelhouse/ai_ticket_daemon-$version-"*.whl
mkdir "$tree/debian/completions"
declare -A names=([bash]=ai-ticketctl [zsh]=_ai-ticketctl)
for shell in bash zsh; do
  PYTHONPATH=$tree/site "$work/venv/bin/python" -B -m ai_ticket_daemon.ctl.main \
    --print-completion $shell >"$tree/debian/completions/${names[$shell]}" ||
    fail "the program prints no completion for $shell"
done
# Tools nobody runs, and modes that mean nothing for a module.
rm -rf "$tree/site/bin" "$tree/site/apsw/sqlite_extra_binaries"
find "$tree/site" -type f -exec chmod 0644 {} +

cd "$tree"
logged "the Debian package" dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes
mv "$work"/ai-ticket-daemon_*.deb "$output/"
printf '%s\n' "$output"/ai-ticket-daemon_"$version"_*.deb
