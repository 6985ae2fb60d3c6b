#!/usr/bin/env bash
# The tests inside the Rust crate etcd-client, from crates.io, against Althing on the port they insist
# on (localhost:2379).
#   conformance/suites/etcd_client.sh [--on etcd]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds etcdctl, and etcd for --on etcd.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"
on=$(on_of "$@")
program=$(judged "$on")

target=${CARGO_TARGET_DIR:-$here/../../target}/etcd_client
mkdir -p "$target" && target=$(cd "$target" && pwd)
manifest=$here/etcd_client/Cargo.toml
source=$(cargo metadata --locked --format-version 1 --manifest-path "$manifest" |
  python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "etcd-client"))')
{ read -r PROTOC; read -r PROTOC_INCLUDE; } < <(
  cargo run --locked --quiet --manifest-path "$manifest" --target-dir "$target" --bin protoc-paths)
export PROTOC PROTOC_INCLUDE
# A crate in the registry's cache is read only; its tests are built from a copy.
copy=$target/source
rm -rf "$copy" && cp -r "$(dirname "$source")" "$copy" && chmod -R u+w "$copy"
printf '\n[workspace]\n' >>"$copy/Cargo.toml"
(cd "$copy" && cargo test --locked --target-dir "$target" --no-run --test client --test namespace)

work=$(mktemp -d "${TMPDIR:-/tmp}/etcd-client.XXXXXX")
ETCD_AUTH_TOKEN_TTL=2 ETCD_MAX_REQUEST_BYTES=10240 "$program" --data-dir "$work/data" >"$work/output" 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
answers localhost:2379 "$server" "$work/output"
etcdctl=$(peer etcdctl)
"$etcdctl" --endpoints=localhost:2379 user add root:rootpwd
"$etcdctl" --endpoints=localhost:2379 user grant-role root root
code=0
(cd "$copy" && cargo test --locked --target-dir "$target" --no-fail-fast --test client --test namespace -- --test-threads=1 \
  --include-ignored --skip test_cluster) || code=1
exit $code
