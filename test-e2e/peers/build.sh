#!/usr/bin/env bash
# Builds the real programs that keelson is judged by, from the Go module proxy, into a cache outside git.
# Usage: build.sh [etcd|etcd-3.6|kube|kube-storage|h2spec|tools|python|benchmark]...   (no argument: all but the last)
# Binaries land in ${KEELSON_CACHE:-$HOME/.cache/keelson}/bin; a stamp beside each names what it was built from,
# so a changed version (or a changed harness source) rebuilds and an unchanged one costs milliseconds.
# The go.mod and go.sum of every wrapper module are in git: go.sum is what makes the builds reproducible.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KEELSON_CACHE:-$HOME/.cache/keelson}
bin=$cache/bin

etcd_version=v3.7.1
etcd_36_version=v3.6.16     # what a rolling upgrade starts from
kube_versions=(1.36.3)      # the proxy answers 403 for k8s.io/kubernetes 1.37.x: README.md, "Kubernetes 1.37"
kube_storage_version=1.37.2 # the same storage layer in a smaller server, which the proxy has
h2spec_version=v2.2.1+incompatible

if ! command -v go >/dev/null; then
  echo "build.sh: 'go' is not installed. Install Go 1.26 or newer (https://go.dev/dl/ or 'apt-get install golang-go') and put it on PATH." >&2
  exit 1
fi
export GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=0
mkdir -p "$bin/.stamps" "$cache/build"

# One build at a time: two callers would otherwise race on the same work folder.
exec 9>"$cache/build/.lock"
flock 9

# module NAME: copies the wrapper out of git (so that -mod=mod can never rewrite what is committed) and enters it.
module() {
  mkdir -p "$cache/build/$1"
  cp -r "$here/$1/." "$cache/build/$1/"
  cd "$cache/build/$1"
}

# built OUTPUT STAMP: true when OUTPUT exists and came from STAMP.
built() { [[ -x $bin/$1 && $(cat "$bin/.stamps/$1" 2>/dev/null || true) == "$2" ]]; }

# compile OUTPUT STAMP PACKAGE [LDFLAGS]: into a temporary name, then renamed: nobody runs half a binary.
compile() {
  built "$1" "$2" && return
  local from=$SECONDS
  go build -p 2 -trimpath -ldflags "-s -w ${4:-}" -o "$bin/.$1.new" "$3"
  mv "$bin/.$1.new" "$bin/$1"
  printf '%s' "$2" >"$bin/.stamps/$1"
  echo "build.sh: $1 ($2) $((SECONDS - from))s"
}

build_etcd() {
  built etcd $etcd_version && built etcdctl $etcd_version && built etcdutl $etcd_version && return
  module etcd
  compile etcd $etcd_version go.etcd.io/etcd/server/v3
  compile etcdctl $etcd_version go.etcd.io/etcd/etcdctl/v3
  compile etcdutl $etcd_version go.etcd.io/etcd/etcdutl/v3
}

# Of the minor version before: the server, and the tool that judges snapshots.
build_etcd-3.6() {
  built etcd-3.6 $etcd_36_version && built etcdutl-3.6 $etcd_36_version && return
  module etcd-3.6
  compile etcd-3.6 $etcd_36_version go.etcd.io/etcd/server/v3
  compile etcdutl-3.6 $etcd_36_version go.etcd.io/etcd/etcdutl/v3
}

build_kube() {
  local version minor stamp
  for version in "${kube_versions[@]}"; do
    minor=${version#1.}
    minor=${minor%%.*}
    # Unstamped, the API server calls itself v0.0.0-master and charts refuse it.
    stamp="-X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=1"
    stamp+=" -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/client-go/pkg/version.gitVersion=v$version"
    built "kube-apiserver-$version" "v$version" || {
      module "kube-$version"
      compile "kube-apiserver-$version" "v$version" k8s.io/kubernetes/cmd/kube-apiserver "$stamp"
    }
    [[ $version == "${kube_versions[0]}" ]] || continue
    built kubectl "v$version" || {
      module "kube-$version"
      compile kubectl "v$version" k8s.io/kubernetes/cmd/kubectl "$stamp"
    }
  done
}

build_kube-storage() {
  local name=apiextensions-apiserver-$kube_storage_version
  built "$name" "v$kube_storage_version" && return
  module "kube-storage-$kube_storage_version"
  compile "$name" "v$kube_storage_version" k8s.io/apiextensions-apiserver \
    "-X k8s.io/component-base/version.gitVersion=v$kube_storage_version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
}

build_h2spec() {
  built h2spec $h2spec_version && return
  module h2spec
  compile h2spec $h2spec_version github.com/summerwind/h2spec/cmd/h2spec
}

# etcd's own load tool, for 'make bench-etcd-tool' alone: no test needs it.
build_benchmark() {
  built benchmark $etcd_version && return
  module benchmark
  compile benchmark $etcd_version go.etcd.io/etcd/v3/tools/benchmark
}

build_tools() {
  local stamp name
  stamp=$(cd "$here/harness" && find . -type f -name '*.go' -o -name 'go.*' | sort | xargs cat | sha256sum | cut -c1-16)
  for name in differ watcher interop bench raft; do
    [[ -d $here/harness/keelson-$name ]] || continue
    built "keelson-$name" "$stamp" && continue
    module harness
    compile "keelson-$name" "$stamp" "./keelson-$name"
  done
  # The same program on a copy of etcd's raft that sends when keelson's does.
  built keelson-raft-deferred "$stamp" && return
  module harness
  go run ./keelson-raft/deferral "$(go list -m -f '{{.Dir}}' go.etcd.io/raft/v3)" "$cache/build/raft-deferred"
  cp go.mod deferred.mod
  cp go.sum deferred.sum
  go mod edit -replace "go.etcd.io/raft/v3=$cache/build/raft-deferred" deferred.mod
  GOFLAGS="$GOFLAGS -modfile=deferred.mod" compile keelson-raft-deferred "$stamp" ./keelson-raft
}

# Google's gRPC for Python in an environment of its own, with stubs made from the protos of etcd's module. Runs under
# $cache/python/bin/python with PYTHONPATH=$cache/python/stubs.
build_python() {
  local stamp protos api openapi packages
  if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "build.sh: skipped python: 'python3' with its venv module is not installed (apt-get install python3-venv)" >&2
    return
  fi
  stamp="$etcd_version $(python3 --version) $(sha256sum <"$here/python/requirements.txt" | cut -c1-16)"
  [[ $(cat "$bin/.stamps/python" 2>/dev/null || true) == "$stamp" && -x $cache/python/bin/python ]] && return
  local from=$SECONDS
  rm -rf "$cache/python"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt"
  module etcd
  go mod download go.etcd.io/etcd/api/v3 github.com/grpc-ecosystem/grpc-gateway/v2
  api=$(go list -m -f '{{.Dir}}' go.etcd.io/etcd/api/v3)
  openapi=$(go list -m -f '{{.Dir}}' github.com/grpc-ecosystem/grpc-gateway/v2)/protoc-gen-openapiv2
  packages=$("$cache/python/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  protos=$cache/build/protos
  rm -rf "$protos" && mkdir -p "$protos/etcd" "$cache/python/stubs"
  ln -s "$api" "$protos/etcd/api"
  ln -s "$openapi" "$protos/protoc-gen-openapiv2"
  (cd "$protos" && "$cache/python/bin/python" -m grpc_tools.protoc -I . -I "$packages" \
    --python_out="$cache/python/stubs" --grpc_python_out="$cache/python/stubs" \
    etcd/api/{mvccpb/kv,authpb/auth,versionpb/version,etcdserverpb/rpc}.proto protoc-gen-openapiv2/options/*.proto)
  printf '%s' "$stamp" >"$bin/.stamps/python"
  echo "build.sh: python ($stamp) $((SECONDS - from))s"
}

targets=("$@")
((${#targets[@]})) || targets=(etcd etcd-3.6 tools h2spec kube kube-storage python)
for target in "${targets[@]}"; do
  case $target in
    etcd | etcd-3.6 | kube | kube-storage | h2spec | tools | python | benchmark) (build_"$target") ;;
    *)
      echo "build.sh: unknown target '$target'; known: etcd etcd-3.6 kube kube-storage h2spec tools python benchmark" >&2
      exit 2
      ;;
  esac
done
