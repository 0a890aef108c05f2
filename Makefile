# Every job of the repository. Needs git, make, Node 20 or later and npm; test-peers also needs Go (see test-e2e/peers).

SHELL := /bin/bash
NODE := node_modules/node/bin/node
DATA ?= default.keelson
# Two cores: test files side by side, but no more than that.
TEST := $(NODE) --test --test-concurrency=2 --test-reporter=spec

.PHONY: setup run test test-peers check bench bench-etcd-tool fuzz clean

setup: node_modules/.stamp

# npm's own stamp would do, but it is older than package-lock.json after a checkout.
node_modules/.stamp: package.json package-lock.json .npmrc
	npm ci --no-fund --no-audit
	@touch $@

run: setup
	bin/keelson --name=default --data-dir=$(DATA)

test: setup
	$(TEST) 'src/**/*.test.ts'

test-peers: setup
	test-e2e/peers/build.sh
	$(TEST) --test-concurrency=1 'src/**/*.peer-test.ts' 'test-e2e/**/*.peer-test.ts'

check: setup
	node_modules/.bin/tsc -p .
	node_modules/.bin/biome check .
	node_modules/.bin/knip
	$(NODE) --test src/tidy.test.ts

bench: setup
	test-e2e/peers/build.sh etcd tools
	bench/run.sh all

fuzz: setup
	@for f in $$(git ls-files 'src/**/*.fuzz.ts'); do echo "== $$f"; $(NODE) $$f --seconds $(or $(SECONDS_EACH),60) || exit 1; done

clean:
	rm -rf node_modules
