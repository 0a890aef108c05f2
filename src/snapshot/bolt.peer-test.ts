// Goal: real bbolt and real etcd take our files, and we take theirs. Method: testdata/boltcheck (a Go program on bbolt 1.5.0)
// dumps, checks and edits what we write and makes databases for us to read; a real etcd's snapshot is copied through reader and
// writer, and etcdutl's status, hashkv and restore and an etcd started from the copy must not see a difference.
// Runs under `make test-peers` only: it needs go, and etcd, etcdctl and etcdutl in $KEELSON_CACHE/bin (default ~/.cache/keelson).

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { SeededRandom } from '../io/random.ts';
import { freePort } from '../testing/free-port.ts';
import { loneMemberFlags, peerBinaries, peerBinary, runPeer } from '../testing/peer-programs.ts';
import { checkBolt } from './bolt-check.ts';
import { dumpLines, openBytes, randomEntries, sourceOf, sourcesOf, unwrap, writeAll } from './bolt-fixture.ts';
import { planBolt, snapshotWithHash } from './bolt-writer.ts';
import { hashKvOf } from './hashkv-fixture.ts';
import { formatStatus, STATUS_FORMATS, snapshotStatus } from './status.ts';

const boltcheck = join(peerBinaries, 'boltcheck');
const directory = mkdtempSync(join(tmpdir(), 'keelson-bolt-'));
const seed = Date.now() % 1_000_000;
const members: ChildProcess[] = [];

before(() => {
  console.log(`bolt.peer-test: seed ${seed}`);
  mkdirSync(peerBinaries, { recursive: true });
  const source = fileURLToPath(new URL('testdata/boltcheck', import.meta.url));
  try {
    execFileSync('go', ['build', '-o', boltcheck, '.'], { cwd: source, stdio: ['ignore', 'inherit', 'inherit'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error('this test needs Go: install it or leave out `make test-peers`', { cause: error });
  }
});

after(() => {
  for (const member of members) member.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

function dumpByBolt(path: string): string[] {
  const lines = runPeer('boltcheck', 'dump', path).trimEnd().split('\n');
  assert.equal(lines.pop(), 'check ok');
  return lines;
}

function fileOf(name: string, bytes: Buffer): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

test('real bbolt reads, checks and edits what we write', () => {
  for (let round = 0; round < 8; round++) {
    const random = new SeededRandom(seed + round);
    const bytes = writeAll([
      sourceOf('alarm', []),
      sourceOf('auth', randomEntries(random, 1 + random.below(3))),
      sourceOf('key', randomEntries(random, random.below(3000))),
      sourceOf('meta', randomEntries(random, random.below(200))),
    ]);
    const path = fileOf('ours.db', bytes);
    assert.deepEqual(dumpByBolt(path), dumpLines(openBytes(bytes)));
    assert.equal(runPeer('boltcheck', 'edit', path, String(seed + round), '400').trim(), 'check ok');
    const edited = openBytes(readFileSync(path));
    unwrap(checkBolt(edited));
    assert.deepEqual(dumpLines(edited), dumpByBolt(path));
  }
});

test('real bbolt takes deep trees of huge keys and large values, and deletes from them', () => {
  const random = new SeededRandom(seed);
  const huge = Array.from({ length: 40 }, (_, i) => [Buffer.alloc(32768, 33 + i), Buffer.alloc(i)] as const);
  const large = Array.from({ length: 6 }, (_, i) => [Buffer.from(`v${i}`), Buffer.alloc(1_600_000 + i, i)] as const);
  const bytes = writeAll([
    sourceOf('huge', huge),
    sourceOf('large', large),
    sourceOf('mixed', randomEntries(random, 50)),
  ]);
  const path = fileOf('deep.db', bytes);
  assert.deepEqual(dumpByBolt(path), dumpLines(openBytes(bytes)));
  assert.equal(runPeer('boltcheck', 'edit', path, String(seed), '40').trim(), 'check ok');
});

test('we read what real bbolt makes: deletes, free pages, nested and inline buckets', () => {
  for (const count of [0, 1, 30, 1000, 6000]) {
    const path = join(directory, 'theirs.db');
    runPeer('boltcheck', 'make', path, String(seed + count), String(count));
    const reader = openBytes(readFileSync(path));
    unwrap(checkBolt(reader));
    assert.deepEqual(dumpLines(reader), dumpByBolt(path));
  }
});

interface Member {
  readonly endpoint: string;
  readonly peer: string;
  stop(): Promise<void>;
}

/** A real etcd of one member on `dataDirectory`; `peer` is given when the directory was restored for it. */
async function startEtcd(dataDirectory: string, peer?: string): Promise<Member> {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const peerUrl = peer ?? `http://127.0.0.1:${await freePort()}`;
  const child = spawn(peerBinary('etcd'), loneMemberFlags('m', dataDirectory, endpoint, peerUrl), { stdio: 'ignore' });
  members.push(child);
  for (let attempt = 0; ; attempt++) {
    try {
      ctl(endpoint, 'endpoint', 'health');
      break;
    } catch (error) {
      if (attempt === 100 || child.exitCode !== null) throw error;
      await sleep(100);
    }
  }
  const stop = async (): Promise<void> => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  };
  return { endpoint, peer: peerUrl, stop };
}

function ctl(endpoint: string, ...args: string[]): string {
  return runPeer('etcdctl', '--endpoints', endpoint, ...args);
}

/** All pairs with their revisions and leases, without the header, whose member and term differ. */
function everyKey(endpoint: string): unknown {
  return JSON.parse(ctl(endpoint, 'get', '', '--from-key', '-w', 'json')).kvs;
}

function hashKvByServer(endpoint: string, revision: number): { hash: number; compact: number } {
  const [answer] = JSON.parse(ctl(endpoint, 'endpoint', 'hashkv', '--rev', String(revision), '-w', 'json'));
  return { hash: answer.HashKV.hash, compact: answer.HashKV.compact_revision };
}

function hashKvByEtcdutl(path: string, revision: number): unknown {
  // etcdutl opens the store for writing: it gets a copy.
  const copy = fileOf('hashkv.db', readFileSync(path));
  return JSON.parse(runPeer('etcdutl', 'hashkv', '--rev', String(revision), '-w', 'json', copy));
}

function randomWrites(endpoint: string, random: SeededRandom, count: number): void {
  for (let i = 0; i < count; i++) {
    const key = `/k/${random.below(30)}`;
    if (random.below(4) === 0) ctl(endpoint, 'del', key);
    else ctl(endpoint, 'put', key, `value-${random.uint32()}`);
  }
}

test('a snapshot of a real etcd, copied through reader and writer, is as good as the original', async () => {
  const random = new SeededRandom(seed);
  const first = await startEtcd(join(directory, 'first'));
  const lease = ctl(first.endpoint, 'lease', 'grant', '5000').split(' ')[1]!;
  ctl(first.endpoint, 'put', `--lease=${lease}`, '/leased', 'x');
  ctl(first.endpoint, 'put', '/large', 'L'.repeat(100_000));
  ctl(first.endpoint, 'user', 'add', 'u:p');
  randomWrites(first.endpoint, random, 60);
  ctl(first.endpoint, 'compact', '40', '--physical');
  randomWrites(first.endpoint, random, 40);
  const original = join(directory, 'original.db');
  ctl(first.endpoint, 'snapshot', 'save', original);

  const reader = openBytes(readFileSync(original));
  const sources = sourcesOf(reader);
  const copy = fileOf('copy.db', Buffer.concat([...snapshotWithHash(sources, planBolt(sources))]));
  const dump = dumpByBolt(original);
  assert.deepEqual(dumpLines(reader), dump);
  assert.deepEqual(dumpByBolt(copy), dump);

  for (const path of [original, copy]) {
    const status = unwrap(snapshotStatus(openBytes(readFileSync(path))));
    for (const format of STATUS_FORMATS) {
      assert.equal(formatStatus(status, format), runPeer('etcdutl', 'snapshot', 'status', '-w', format, path));
    }
  }
  const { revision } = unwrap(snapshotStatus(reader));
  for (const asked of [0, 40, 41, 60, revision - 1, revision]) {
    assert.deepEqual(hashKvOf(reader, asked), hashKvByEtcdutl(copy, asked), `hashkv at ${asked}`);
  }
  // The hash that etcd stores at a compaction is over the rows before their deletion.
  const beforeCompaction = hashKvOf(reader, revision);
  ctl(first.endpoint, 'compact', String(revision), '--physical');
  const stored = hashKvByServer(first.endpoint, revision);
  assert.deepEqual(stored, { hash: beforeCompaction.hash, compact: 40 });
  const keys = everyKey(first.endpoint);
  await first.stop();

  const restored = join(directory, 'restored');
  const peer = `http://127.0.0.1:${await freePort()}`;
  const flags = ['--name=m', `--initial-cluster=m=${peer}`, `--initial-advertise-peer-urls=${peer}`];
  runPeer('etcdutl', 'snapshot', 'restore', copy, `--data-dir=${restored}`, ...flags);
  const second = await startEtcd(restored, peer);
  assert.deepEqual(everyKey(second.endpoint), keys);
  assert.match(ctl(second.endpoint, 'lease', 'list'), new RegExp(lease));
  assert.equal(ctl(second.endpoint, 'user', 'list').trim(), 'u');
  assert.equal(
    hashKvByServer(second.endpoint, revision).hash,
    (hashKvByEtcdutl(copy, revision) as { hash: number }).hash,
  );
  // It lives on: writes, compaction (deletes in our pages), defragmentation.
  randomWrites(second.endpoint, random, 30);
  ctl(second.endpoint, 'compact', String(revision + 10), '--physical');
  ctl(second.endpoint, 'defrag');
  const later = join(directory, 'later.db');
  ctl(second.endpoint, 'snapshot', 'save', later);
  unwrap(checkBolt(openBytes(readFileSync(later))));
  await second.stop();
});
