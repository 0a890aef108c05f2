#!/bin/sh
# Three members on loopback, as `make run` starts them: clients on 2379, 22379 and 32379, peers on the ports above, data in $1. Ends all
# of them with itself; a member that ends by itself is said, and the others go on.
set -u
root=$(dirname "$0")
data=${1:-default.keelson}
mkdir -p "$data"
cluster=m1=http://127.0.0.1:2380,m2=http://127.0.0.1:22380,m3=http://127.0.0.1:32380
pids=
start() {
  "$root/bin/keelson" --name="$1" --data-dir="$data/$1" \
    --listen-client-urls="http://127.0.0.1:$2" --advertise-client-urls="http://127.0.0.1:$2" \
    --listen-peer-urls="http://127.0.0.1:$3" --initial-advertise-peer-urls="http://127.0.0.1:$3" \
    --initial-cluster="$cluster" --initial-cluster-token=keelson-run >"$data/$1.log" 2>&1 &
  pids="$pids $!"
}
end() {
  trap - INT TERM EXIT
  # shellcheck disable=SC2086
  kill $pids 2>/dev/null
  wait
}
trap 'end; exit 0' INT TERM
trap end EXIT
start m1 2379 2380
start m2 22379 22380
start m3 32379 32380
for name in m1 m2 m3; do
  until grep -q 'ready to serve client requests' "$data/$name.log"; do
    # shellcheck disable=SC2086
    if ! kill -0 $pids 2>/dev/null; then
      echo "a member ended by itself; its log is in $data:" >&2
      tail -n 3 "$data"/m?.log >&2
      exit 1
    fi
    sleep 0.1
  done
done
echo "three members serve: 127.0.0.1:2379, 127.0.0.1:22379, 127.0.0.1:32379; their logs are $data/m1.log, m2.log, m3.log"
wait
