#!/usr/bin/env bash
# Runs a suite and keeps what it printed in conformance/results.tsv, which docs/compatibility.md is made from.
#   conformance/suites/record.sh SUITE COMMAND [ARGUMENT...]
# SUITE is the row's name. Counted are all lines "test result: ... P passed; F failed" of the output; a line
# that begins with "counted: " says what was counted besides. The row names the day and the commit.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2; }
suite=$1; shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=$here/../results.tsv
output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
"$@" 2>&1 | tee "$output" || code=$?
told='(^| )test result: .*[0-9]+ passed; [0-9]+ failed'
if ! grep -qE "$told" "$output"; then
  echo "$suite told no result: nothing is recorded" >&2
  exit $((code == 0 ? 1 : code))
fi
count() { # word
  grep -E "$told" "$output" | grep -oE "[0-9]+ $1" | awk '{sum += $1} END {print sum + 0}'
}
passed=$(count passed) failed=$(count failed)
if [[ $code -ne 0 && $failed -eq 0 ]]; then
  echo "$suite ended with $code and no failure of its own: nothing is recorded" >&2
  exit "$code"
fi
counted=$(sed -nE 's/^(test [^ ]+ \.\.\. )?counted: (.*)/\2/p' "$output" | paste -sd';' | sed 's/;/; /g')
commit=$(git -C "$here" rev-parse --short=9 HEAD)
[[ -z $(git -C "$here" status --porcelain -- ../../src) ]] || commit+=' and changes'
row=$(printf '%s\t%s\t%s\t%s\t%s\t%s' "$suite" "$(date -u +%F)" "$commit" "$passed" "$failed" "$counted")
{ [[ ! -e $results ]] || grep -v "^$suite"$'\t' "$results" || true; echo "$row"; } | LC_ALL=C sort >"$results.new"
mv "$results.new" "$results"
exit "$code"
