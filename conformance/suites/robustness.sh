#!/usr/bin/env bash
# etcd's own robustness traffic (Kubernetes' and etcd's) and judge, as a library, against four organisations
# whose replicas are killed, paused and cut off; then eight lies that the judge must find.
#   conformance/suites/robustness.sh [--on etcd] [--keep DIR]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds robustness (conformance/peers/build.sh
# robustness), and etcd for --on etcd.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"
on=althing keep=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --on) on=$2; shift ;;
    --keep) keep=(--keep "$2"); shift ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done
program=$(judged "$on")
robustness=$(peer robustness)

# What took effect is read from the replicas' logs, by a program of this workspace.
target=${CARGO_TARGET_DIR:-$here/../../target}
(cd "$here/../.." && cargo build --locked --quiet -p conformance --bin requests)
"$robustness" --on "$on" --program "$program" --requests "$target/debug/requests" ${keep[@]+"${keep[@]}"}
