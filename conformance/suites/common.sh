#!/usr/bin/env bash
# etcd's own suite tests/common, end to end, against Althing as a program named `etcd`.
#   conformance/suites/common.sh [--on etcd] [--run PATTERN] [--keep DIR]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds etcd, etcdctl, etcdutl and common.test
# (conformance/peers/build.sh etcd common). What common.skip names is left out, on Althing alone.
# Ends with a line "test result: ..." of all cases; the whole output is in DIR/output.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"
on=althing pattern=. keep=
while [[ $# -gt 0 ]]; do
  case $1 in
    --on) on=$2; shift ;;
    --run) pattern=$2; shift ;;
    --keep) keep=$2; shift ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done

work=$(mktemp -d "${TMPDIR:-/tmp}/common-suite.XXXXXX")
trap '[[ -n $keep ]] || rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/common"
fixtures=$(cd "$here/../peers/common" && GOWORK=off go list -m -f '{{.Dir}}' go.etcd.io/etcd/tests/v3)/fixtures
cp -r "$fixtures" "$work/fixtures" && chmod -R u+w "$work/fixtures"
ln -s "$(peer etcdctl)" "$(peer etcdutl)" "$work/bin/"
skip=()
ln -s "$(judged "$on")" "$work/bin/etcd"
if [[ $on != etcd ]]; then
  left_out=$(sed -n 's/^\(Test[^ ]*\) .*/\1/p' "$here/common.skip" | sed 's#[^/][^/]*#^&$#g' | paste -sd'|')
  [[ -z $left_out ]] || skip=(-test.skip "$left_out")
fi
suite=$(peer common.test)
output=${keep:-$work}/output
mkdir -p "$(dirname "$output")"
code=0
(cd "$work/common" && env -u TMPDIR "$suite" -test.v -test.timeout 60m -test.run "$pattern" \
  ${skip[@]+"${skip[@]}"} -bin-dir="$work/bin") >"$output" 2>&1 || code=$?

count() { grep -cE "^ *--- $1: " "$output" || true; }
passed=$(count PASS) failed=$(count FAIL) skipped=$(count SKIP)
grep -E '^ *--- FAIL: ' "$output" || true
named=0
[[ $on == etcd ]] || named=$(grep -c '^Test' "$here/common.skip" || true)
echo "tests/common on $on: $passed passed, $failed failed, $skipped skip themselves, $named left out by common.skip"
if [[ $code -ne 0 && $failed -eq 0 ]]; then tail -20 "$output"; failed=1; fi
verdict "$passed" "$failed"
