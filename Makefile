# Every job of the repository. Needs git, make, Node 20 or later and npm; test-peers also needs Go (see test-e2e/peers).

SHELL := /bin/bash
NODE := node_modules/node/bin/node
DATA ?= default.keelson
# Two cores: test files side by side, but no more than that.
TEST := $(NODE) --test --test-concurrency=2 --test-reporter=spec

.PHONY: setup run run-one test test-peers test-long check bench bench-cluster bench-etcd-tool bench-h2load fuzz simulate clean

setup: node_modules/.stamp

# Not `npm ci`: it refuses a lock file whenever the registry at hand lacks a package of some other platform. The versions of the lock
# file hold all the same, and it is not rewritten. npm's own stamp would do, but is older than the lock file after a checkout.
node_modules/.stamp: package.json package-lock.json .npmrc
	npm install --no-save --no-fund --no-audit
	@touch $@

run: setup
	@echo 'keelson: three members, clients on http://127.0.0.1:2379 and two more, data in ./$(DATA); stop them by Ctrl-C.'
	@echo 'In another terminal try:'
	@echo '  bin/keelsonctl put greeting hello; bin/keelsonctl get greeting; bin/keelsonctl watch --prefix ""'
	@echo '  bin/keelsonctl --endpoints=127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379 endpoint status -w table'
	@echo '  curl http://127.0.0.1:2379/health; curl http://127.0.0.1:2379/metrics'
	./run-cluster.sh $(DATA)

run-one: setup
	bin/keelson --name=default --data-dir=$(DATA)-one

test: setup
	$(TEST) 'src/**/*.test.ts' 'test-e2e/**/*.test.ts'

test-peers: setup
	test-e2e/peers/build.sh
	$(TEST) --test-concurrency=1 'src/**/*.peer-test.ts' 'test-e2e/**/*.peer-test.ts'

# What `make test` and `make test-peers` do for a fixed budget, for hours: kills, damage, differences, one API server, fuzzers.
test-long: setup
	test-e2e/peers/build.sh
	KEELSON_KILLS=300 $(TEST) test-e2e/crash.test.ts
	KEELSON_KILLS=40 $(TEST) test-e2e/crash-throughput.peer-test.ts
	KEELSON_KILLS=100 $(TEST) src/backend/backend-lmdb.test.ts
	KEELSON_DAMAGE_ROUNDS=100 $(TEST) test-e2e/damaged-database.test.ts
	KEELSON_DIFFER_REQUESTS=100000 $(TEST) test-e2e/differ.peer-test.ts
	KEELSON_E2E_LONG=9 $(TEST) test-e2e/kube-apiserver.peer-test.ts
	KEELSON_ROUNDS=30 $(TEST) --test-concurrency=1 test-e2e/cluster-faults.peer-test.ts test-e2e/cluster-cuts.peer-test.ts
	KEELSON_ROUNDS=10 $(TEST) --test-concurrency=1 test-e2e/cluster-disks.peer-test.ts test-e2e/large-beside-small.peer-test.ts
	KEELSON_KILLS=30 $(TEST) test-e2e/failover.peer-test.ts
	KEELSON_WATCHERS=100000 $(TEST) test-e2e/cluster-watchers.peer-test.ts
	$(MAKE) fuzz SECONDS_EACH=600

check: setup
	node_modules/.bin/tsc -p .
	node_modules/.bin/biome check .
	node_modules/.bin/knip
	$(NODE) --test src/tidy.test.ts

# Each scenario alternates etcd and keelson; ROUNDS and DURATION make it longer.
ROUNDS ?= 3
DURATION ?= 20s
SCENARIOS ?= put get onekey page rangestream watch idle-watch restart
bench: setup
	test-e2e/peers/build.sh etcd tools
	@for s in $(SCENARIOS); do $(NODE) bench/run.ts $$s -n $(ROUNDS) --duration $(DURATION) || exit 1; done

# The same with three members that share the machine.
CLUSTER_SCENARIOS ?= put-leader put-follower get-leader get-follower onekey
bench-cluster: setup
	test-e2e/peers/build.sh etcd tools
	$(NODE) bench/cluster.ts $(CLUSTER_SCENARIOS) -n $(ROUNDS) --duration $(DURATION)

# etcd's own load tool, on any endpoint: make bench-etcd-tool ARGS='--endpoints=127.0.0.1:2379 put --total=100000'
bench-etcd-tool: setup
	test-e2e/peers/build.sh benchmark
	$${KEELSON_CACHE:-$$HOME/.cache/keelson}/bin/benchmark $(ARGS)

# The unary figures once more by nghttp2's h2load (apt-get install nghttp2-client), a client of nobody here.
bench-h2load: setup
	$(NODE) bench/h2load.ts -n $(ROUNDS)

fuzz: setup
	@for f in $$(git ls-files 'src/**/*.fuzz.ts'); do echo "== $$f"; $(NODE) $$f --seconds $(or $(SECONDS_EACH),60) || exit 1; done

# Seeds of the simulated cluster until it is stopped; SIMULATE='--seed=7' replays one with its whole trace.
simulate: setup
	$(NODE) src/testing/simulate.ts $(SIMULATE)

clean:
	rm -rf node_modules
