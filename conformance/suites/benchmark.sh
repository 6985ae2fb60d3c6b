#!/usr/bin/env bash
# etcd's `benchmark` in all its modes and `etcdctl check perf`, each without an error; no speed is judged.
#   conformance/suites/benchmark.sh [--on etcd]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds benchmark, etcdctl, and etcd for --on etcd.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
on=$(on_of "$@")
program=$(judged "$on")
benchmark=$(peer benchmark) etcdctl=$(peer etcdctl)

work=$(mktemp -d "${TMPDIR:-/tmp}/benchmark.XXXXXX")
endpoint=http://127.0.0.1:23790 peers=http://127.0.0.1:23791
"$program" --data-dir "$work/data" --listen-client-urls=$endpoint --advertise-client-urls=$endpoint \
  --listen-peer-urls=$peers --initial-advertise-peer-urls=$peers --initial-cluster=default=$peers \
  >"$work/output" 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
answers $endpoint "$server" "$work/output"

passed=0 failed=0
run() { # mode, flags...
  local said code=0
  said=$(timeout 600 "$benchmark" --endpoints=$endpoint --conns=4 --clients=16 "$@" 2>&1) || code=$?
  # Its own last request it cancels itself, and says so.
  if [[ $code -ne 0 ]] || grep -v 'context canceled' <<<"$said" | grep -qiE 'error distribution|panic|rpc error|failed'; then
    echo "benchmark $*: exit $code"; tail -15 <<<"$said"
    failed=$((failed + 1))
  else
    echo "benchmark $*: $(grep -m1 -oE 'Requests/sec:.*|Total:.*' <<<"$said" | tr -s '\t ' ' ' || echo done)"
    passed=$((passed + 1))
  fi
}
run put --total=2000 --key-space-size=500 --val-size=64
run put --total=500 --sequential-keys --compact-interval=1s --compact-index-delta=100
run range key --total=1000
run range a z --total=200 --limit=10 --consistency=s
run range a z --total=200 --count-only
run txn-put --total=500 --txn-ops=10 --key-space-size=100
run txn-mixed key --total=500
for isolation in r c s ss; do run stm --total=300 --keys=10 --keys-per-txn=2 --isolation=$isolation; done
run stm --total=100 --stm-locker=lock-client
run lease-keepalive --total=1000
run watch --streams=10 --watch-per-stream=10 --put-total=200
run watch-get --watchers=100 --streams=10 --events=4
run watch-latency --streams=10 --watchers-per-stream=10 --put-total=100

# What it says about speed depends on the machine; that it ran to its end does not.
said=$(timeout 600 "$etcdctl" --endpoints=$endpoint check perf --load=s 2>&1 | tr '\r' '\n' | tail -8) || true
if grep -q Throughput <<<"$said" && grep -q Stddev <<<"$said"; then
  passed=$((passed + 1))
  echo "etcdctl check perf ran: $(grep -oE '(PASS|FAIL|Slowest|Stddev|Throughput).*' <<<"$said" | paste -sd';')"
else
  failed=$((failed + 1))
  echo "etcdctl check perf:"; cut -c1-300 <<<"$said"
fi
verdict "$passed" "$failed"
