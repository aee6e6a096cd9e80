#!/usr/bin/env bash
# Starts a record of a decision from the template, with the next free number; `--help` says how.
set -euo pipefail

case ${1:---help} in
  --help | -h)
    echo 'Usage: ops/new-adr.sh TITLE [DIRECTORY]'
    echo 'Writes docs/adr/NNNN-title.md from the template and adds its line to the index.'
    exit 0
    ;;
esac

title=$1
directory=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)/docs/adr}
last=$(find "$directory" -name '[0-9][0-9][0-9][0-9]-*.md' -printf '%f\n' | sort | tail -1)
number=$((10#${last:0:4} + 1))
slug=$(tr '[:upper:]' '[:lower:]' <<<"$title" | tr -cs 'a-z0-9' '-' | sed 's/^-*//; s/-*$//')
file=$(printf '%04d-%s.md' "$number" "$slug")
{
  printf '# %d. %s\n' "$number" "$title"
  tail -n +2 "$directory/template.md"
} >"$directory/$file"
printf -- '- [%d. %s](%s)\n' "$number" "$title" "$file" >>"$directory/README.md"
echo "$directory/$file"
