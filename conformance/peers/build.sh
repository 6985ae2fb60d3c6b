#!/usr/bin/env bash
# Builds the Go peers once and prints the directories they are in, joined by ':'.
#   conformance/peers/build.sh [etcd] [kube] [benchmark] [common] [robustness] [envtest] [kwok]
# A directory is named by what it was built from (go.mod, go.sum, own sources, Go version), so a
# second run finds it, and another clone with other pins does not disturb it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${ALTHING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/althing}
kube_version=v1.37.1

key() { # directory of a go.mod
  (cd "$1" && { cat go.mod go.sum; find . -name '*.go' -print0 | sort -z | xargs -0 -r cat; cat "$here/build.sh"; go version; }) |
    sha256sum | cut -c1-16
}

build_etcd() { # destination
  go build -p 2 -trimpath -o "$1/etcd" go.etcd.io/etcd/server/v3
  go build -p 2 -trimpath -o "$1/etcdctl" go.etcd.io/etcd/etcdctl/v3
  go build -p 2 -trimpath -o "$1/etcdutl" go.etcd.io/etcd/etcdutl/v3
  go build -p 2 -trimpath -o "$1/descriptors" ./descriptors
}

build_benchmark() { # destination
  go build -p 2 -trimpath -o "$1/benchmark" go.etcd.io/etcd/v3/tools/benchmark
}

build_common() { # destination
  go test -c -p 2 -tags e2e -trimpath -o "$1/common.test" go.etcd.io/etcd/tests/v3/common
}

build_robustness() { # destination
  go build -p 2 -trimpath -o "$1/robustness" .
}

build_envtest() { # destination
  go build -p 2 -trimpath -o "$1/envtest-smoke" .
}

build_kwok() { # destination
  go build -p 2 -trimpath -o "$1/" sigs.k8s.io/kwok/cmd/kwok sigs.k8s.io/kwok/cmd/kwokctl
}

build_kube() { # destination
  local v=k8s.io/component-base/version
  # Without the version flags the apiserver and its clients disagree about who is newer.
  go build -p 2 -trimpath -o "$1/" \
    -ldflags "-s -w -X $v.gitVersion=$kube_version -X $v.gitMajor=1 -X $v.gitMinor=37 -X $v.gitTreeState=clean" \
    k8s.io/kubernetes/cmd/kubectl k8s.io/kubernetes/cmd/kube-apiserver \
    k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kube-scheduler
}

export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off
found=()
for group in "$@"; do
  bin=$cache/peers/$group-$(key "$here/$group")
  if [[ ! -d $bin ]]; then
    echo "building the $group peers into $bin (once; kube takes about ten minutes)" >&2
    mkdir -p "$cache/peers"
    fresh=$(mktemp -d "$cache/peers/.$group.XXXXXX")
    (cd "$here/$group" && "build_$group" "$fresh") >&2
    chmod 755 "$fresh"
    # Whole or not at all: an interrupted build leaves no directory that looks finished. Where
    # another run was quicker, its directory is as good.
    mv -T "$fresh" "$bin" 2>/dev/null || rm -rf "$fresh"
  fi
  found+=("$bin")
done
(IFS=:; echo "${found[*]}")
