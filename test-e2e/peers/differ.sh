#!/usr/bin/env bash
# Starts etcd (A) and the server under test (B) on free loopback ports with fresh data, runs keelson-differ over them.
# Usage: differ.sh [-B SERVER] [-k] [differ flags...]     e.g. differ.sh -B etcd -seed 7 -n 20000
#   -B  what B is: 'keelson' (default: <repository>/bin/keelson), 'etcd', or a path to a program that takes etcd's flags
#   -k  keep the data directories and logs (they are kept after a difference anyway)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${KEELSON_CACHE:-$HOME/.cache/keelson}/bin
server=keelson
keep=
while [[ ${1:-} == -B || ${1:-} == -k ]]; do
  if [[ $1 == -B ]]; then server=$2; shift 2; else keep=1; shift; fi
done
case $server in
  keelson) server=$here/../../bin/keelson ;;
  etcd) server=$bin/etcd ;;
esac
"$here/build.sh" etcd tools >&2

work=$(mktemp -d "${TMPDIR:-/tmp}/keelson-differ.XXXXXX")
pids=()
finish() {
  local code=$?
  ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
  wait 2>/dev/null || true
  if [[ $code -ne 0 || -n $keep ]]; then echo "differ.sh: data and logs in $work" >&2; else rm -rf "$work"; fi
}
trap finish EXIT

# A port is free when nobody answers on it; two in a row for client and peer.
free_port() {
  local p
  while :; do
    p=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || (exec 3<>"/dev/tcp/127.0.0.1/$((p + 1))") 2>/dev/null || { echo $p; return; }
  done
}
start() { # NAME PROGRAM PORT
  "$2" --name default --data-dir "$work/$1" --log-level warn \
    --listen-client-urls "http://127.0.0.1:$3" --advertise-client-urls "http://127.0.0.1:$3" \
    --listen-peer-urls "http://127.0.0.1:$(($3 + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$(($3 + 1))" \
    --initial-cluster "default=http://127.0.0.1:$(($3 + 1))" >"$work/$1.log" 2>&1 &
  pids+=($!)
}
ready() { # NAME PORT
  for _ in $(seq 200); do
    "$bin/etcdctl" --endpoints "127.0.0.1:$2" --command-timeout 1s get x >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "differ.sh: $1 does not answer; its log:" >&2
  tail -20 "$work/$1.log" >&2
  exit 2
}
a=$(free_port)
start A "$bin/etcd" "$a"
ready A "$a"
b=$(free_port)
start B "$server" "$b"
ready B "$b"
"$bin/keelson-differ" -a "http://127.0.0.1:$a" -b "http://127.0.0.1:$b" "$@"
