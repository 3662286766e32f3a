#!/usr/bin/env bash
# Runs every fuzzer of the tree for the given time (default 30s) and stops at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
each="${1:-30s}"
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
  for name in $(grep -rhoE '^func (Fuzz[A-Za-z0-9_]+)' "$dir"/*_test.go | awk '{print $2}'); do
    echo "== $dir $name $each"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "$each" "$dir"
  done
done
