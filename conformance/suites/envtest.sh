#!/usr/bin/env bash
# controller-runtime's envtest starts Althing as a program named `etcd`, and kube-apiserver on it.
#   conformance/suites/envtest.sh [--on etcd]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds envtest-smoke, kube-apiserver and kubectl
# (conformance/peers/build.sh envtest kube), and etcd for --on etcd.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
on=$(on_of "$@")
program=$(judged "$on")
smoke=$(peer envtest-smoke)

work=$(mktemp -d "${TMPDIR:-/tmp}/envtest.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/assets" "$work/tmp"
ln -s "$program" "$work/assets/etcd"
ln -s "$(peer kube-apiserver)" "$(peer kubectl)" "$work/assets/"
# What the user has set for other clusters is not meant here.
env -u KUBEBUILDER_ASSETS -u TEST_ASSET_ETCD -u TEST_ASSET_KUBE_APISERVER -u TEST_ASSET_KUBECTL -u USE_EXISTING_CLUSTER \
  TMPDIR="$work/tmp" "$smoke" "$work/assets" 2>"$work/log" || { tail -20 "$work/log"; exit 1; }
