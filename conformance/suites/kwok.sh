#!/usr/bin/env bash
# kwokctl starts Althing as a program named `etcd`, a Kubernetes control plane on it, and nodes that are none.
#   conformance/suites/kwok.sh [--on etcd]
# ALTHING_BIN is the program judged; ALTHING_PEERS_BIN holds kwok, kwokctl, the programs of Kubernetes, etcdctl
# and etcdutl (conformance/peers/build.sh kwok kube etcd), and etcd for --on etcd.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
on=$(on_of "$@")
program=$(judged "$on")
kwokctl=$(peer kwokctl)

work=$(mktemp -d "${TMPDIR:-/tmp}/kwok.XXXXXX")
mkdir "$work/bin" "$work/home"
ln -s "$program" "$work/bin/etcd"
for name in kubectl etcdctl etcdutl; do ln -s "$(peer $name)" "$work/bin/"; done
export HOME=$work/home KWOK_WORKDIR=$work/kwok KUBECONFIG=$work/home/kubeconfig PATH=$work/bin:$PATH
end() {
  "$kwokctl" delete cluster --name smoke >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT
cat >"$work/config.yaml" <<YAML
kind: KwokctlConfiguration
apiVersion: config.kwok.x-k8s.io/v1alpha1
options:
  runtime: binary
  bindAddress: 127.0.0.1
  etcdBinary: $work/bin/etcd
  etcdctlBinary: $work/bin/etcdctl
  etcdutlBinary: $work/bin/etcdutl
  kubectlBinary: $work/bin/kubectl
  kubeApiserverBinary: $(peer kube-apiserver)
  kubeControllerManagerBinary: $(peer kube-controller-manager)
  kubeSchedulerBinary: $(peer kube-scheduler)
  kwokControllerBinary: $(peer kwok)
YAML

passed=0 failed=0
try() { # what, command...
  local what=$1 begin=$SECONDS; shift
  # What the next step needs is not there after a failure, so the first one is the last.
  if [[ $failed -gt 0 ]]; then return; fi
  if "$@" >"$work/said" 2>&1; then
    passed=$((passed + 1))
    echo "kwok: $what: ok, $((SECONDS - begin)) s"
  else
    failed=1
    echo "kwok: $what: FAILED"
    tail -20 "$work/said"
    tail -5 "$KWOK_WORKDIR"/clusters/smoke/logs/{etcd,kube-apiserver,kube-scheduler,kube-controller-manager,kwok-controller}.log 2>/dev/null || true
  fi
}
kubectl() { "$kwokctl" --name smoke kubectl "$@"; }
eventually() { # command...
  local tries=0
  until "$@"; do
    ((++tries < 120)) || return 1
    sleep 1
  done
}
count() { # how many, kubectl get's arguments...
  local want=$1; shift
  [[ $(kubectl get "$@" --no-headers | wc -l) -eq $want ]]
}
running() { [[ $(kubectl get pods --no-headers | grep -c ' Running ') -eq $1 ]]; }

try "create cluster" "$kwokctl" create cluster --name smoke --config "$work/config.yaml" --wait 3m --timeout 5m
try "the components are ready" eventually kubectl get --raw /readyz
try "5 nodes" "$kwokctl" scale node --name smoke --replicas 5
try "5 nodes are ready" kubectl wait --for=condition=Ready node --all --timeout=120s
try "a Deployment of 20" kubectl create deployment web --image=none.example/web --replicas=20
try "20 pods run" eventually running 20
try "scaled to 5" kubectl scale deployment web --replicas=5
try "15 pods are gone" eventually count 5 pods
try "etcdctl through kwokctl" "$kwokctl" --name smoke etcdctl get /registry/deployments --prefix --keys-only
try "snapshot save" "$kwokctl" snapshot save --name smoke --path "$work/snapshot.db"
try "etcdutl reads the snapshot" etcdutl snapshot status "$work/snapshot.db" --write-out=table
try "stop cluster" "$kwokctl" stop cluster --name smoke
try "start cluster" "$kwokctl" start cluster --name smoke --wait 3m --timeout 5m
try "the pods are still there" eventually running 5
try "a pod more after the start" kubectl scale deployment web --replicas=6
# That it runs too is up to kwok: it waits 200 s for its former self's leases of the nodes, unless the controller
# of pods happens to start before the one of nodes. So on etcd.
try "6 pods are there" eventually count 6 pods
try "delete cluster" "$kwokctl" delete cluster --name smoke
verdict "$passed" "$failed"
