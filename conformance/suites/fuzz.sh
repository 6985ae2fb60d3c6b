#!/usr/bin/env bash
# Runs the fuzz targets (conformance/src/targets) by coverage, and says how often each ran.
#   conformance/suites/fuzz.sh [--seconds N | --runs N] [TARGET...]
# Without TARGET all of them; 60 seconds each unless told otherwise. What it learns lies in the cache
# ($ALTHING_CACHE/fuzz) and is where the next run begins; an input that fails is kept there too, and named.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${ALTHING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/althing}
limit=-max_total_time=60
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) limit=-max_total_time=${2:?--seconds wants a number}; shift ;;
    --runs) limit=-runs=${2:?--runs wants a number}; shift ;;
    -*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) break ;;
  esac
  shift
done

export PATH=$cache/cargo-tools/bin:$PATH
if ! command -v cargo-fuzz >/dev/null; then
  cargo install --quiet --locked --root "$cache/cargo-tools" cargo-fuzz@0.13.2 || {
    echo "left out: cargo-fuzz is not there and cannot be installed" | tee -a "${ALTHING_SKIPS:-/dev/null}"
    exit 0
  }
fi

fuzz=(--fuzz-dir "$root/conformance/fuzz")
built=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/fuzz
# What the targets call is safe Rust; without a sanitizer they run three times as often, on any toolchain.
build=(--sanitizer none --features server --target-dir "$built")
cargo fuzz build "${fuzz[@]}" "${build[@]}" || exit 1
targets=("$@")
[[ $# -gt 0 ]] || mapfile -t targets < <(cargo fuzz list "${fuzz[@]}")
passed=0 failed=0
for target in "${targets[@]}"; do
  corpus=$cache/fuzz/$target
  mkdir -p "$corpus" "$cache/fuzz/failures"
  log=$cache/fuzz/$target.log
  if cargo fuzz run "${fuzz[@]}" "${build[@]}" "$target" "$corpus" -- "$limit" \
    -artifact_prefix="$cache/fuzz/failures/$target-" -print_final_stats=1 -max_len=4096 -timeout=120 \
    -rss_limit_mb=4096 >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, $(
      sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1) places covered"
  else
    failed=$((failed + 1))
    tail -40 "$log"
    echo "$target: FAILED, see $log"
  fi
done
verdict "$passed" "$failed"
