// Goal: a real etcd's database, installed here and sent on, is the same database: every bucket byte for byte (but what the engine leaves
// free), and the same HashKV. Method: etcd's own snapshot without its hash, as one member sends it to another; what we send of it is read
// by real bbolt (boltcheck) and hashed by etcdutl. Runs under `make test-peers` only.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../io/clock.ts';
import { dumpLines, openBytes, unwrap } from '../snapshot/bolt-fixture.ts';
import { verifySnapshotHash } from '../snapshot/bolt-reader.ts';
import { hashKvOf } from '../snapshot/hashkv-fixture.ts';
import { freePort } from '../testing/free-port.ts';
import { loneMemberFlags, peerBinary, runPeer } from '../testing/peer-programs.ts';
import { Backend } from './backend.ts';
import { readSnapshotFacts } from './snapshot-conversion.ts';
import { snapshotTrailer } from './snapshot-source.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-install-peer-'));
let etcd: ChildProcess | null = null;
after(() => {
  etcd?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

/** etcd's snapshot of a state with leases, users, an alarm, deletions and a compaction; with its hash. */
async function realSnapshot(): Promise<string> {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const peer = `http://127.0.0.1:${await freePort()}`;
  etcd = spawn(peerBinary('etcd'), loneMemberFlags('m', join(folder, 'etcd'), endpoint, peer), { stdio: 'ignore' });
  const ctl = (...args: string[]): string => runPeer('etcdctl', '--endpoints', endpoint, ...args);
  for (let attempt = 0; ; attempt++) {
    try {
      ctl('endpoint', 'health');
      break;
    } catch (error) {
      if (attempt === 100 || etcd.exitCode !== null) throw error;
      await sleep(100);
    }
  }
  const lease = ctl('lease', 'grant', '5000').split(' ')[1]!;
  ctl('put', `--lease=${lease}`, '/leased', 'x');
  ctl('put', '/large', 'L'.repeat(100_000));
  ctl('user', 'add', 'u:p');
  for (let i = 0; i < 60; i++) {
    if (i % 4 === 3) ctl('del', `/k/${i % 7}`);
    else ctl('put', `/k/${i % 7}`, `value-${i}`);
  }
  ctl('compact', '30', '--physical');
  for (let i = 0; i < 20; i++) ctl('put', `/k/${i % 9}`, `later-${i}`);
  ctl('member', 'add', 'learner', '--learner', '--peer-urls=http://127.0.0.1:1');
  const path = join(folder, 'real.db');
  ctl('snapshot', 'save', path);
  etcd.kill('SIGTERM');
  return path;
}

function bytesOf(backend: Backend): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    const done = (error: Error | null): void => (error === null ? resolve(Buffer.concat(chunks)) : reject(error));
    backend.snapshot({ started: () => {}, chunk: (bytes) => chunks.push(bytes) > 0, done }, snapshotTrailer.none);
  });
}

test("a real etcd's database is installed, and sent on as it was", async () => {
  const saved = await realSnapshot();
  const whole = readFileSync(saved);
  const databaseBytes = unwrap(verifySnapshotHash(openBytes(whole).file));
  const path = join(folder, 'received.snap.db');
  const received = whole.subarray(0, databaseBytes);
  writeFileSync(path, received);
  const reader = openBytes(received);
  const { consistentIndex, term } = unwrap(readSnapshotFacts(reader.file));
  assert.ok(consistentIndex > 80 && term > 0);
  const backend = Backend.open({
    path: join(folder, 'keelson.mdb'),
    clock: systemClock,
    onFatal: (error) => assert.fail(error),
  });
  await new Promise<void>((resolve) => backend.install({ path, index: consistentIndex, term }, resolve));
  assert.equal(backend.consistentIndex, consistentIndex);
  assert.equal(backend.consistentTerm, term);
  assert.equal(backend.compactRevision, 30);
  for (const revision of [30, 31, 50, backend.currentRevision]) {
    const hash = await new Promise<number>((resolve, reject) =>
      backend.hashKv(revision, 30, (value, error) => (error === null ? resolve(value) : reject(error))),
    );
    assert.equal(hash, hashKvOf(reader, revision).hash, `HashKV at ${revision}`);
    const byEtcd = JSON.parse(runPeer('etcdutl', 'hashkv', '--rev', String(revision), '-w', 'json', copyOf(saved)));
    assert.equal(hash, byEtcd.hash, `etcd's own at ${revision}`);
  }
  const ours = await bytesOf(backend);
  await new Promise<void>((resolve) => backend.close(resolve));
  assert.deepEqual(dumpLines(openBytes(ours)), dumpLines(reader), 'every bucket is as etcd wrote it');
  const sent = join(folder, 'sent.db');
  writeFileSync(sent, ours);
  const lines = runPeer('boltcheck', 'dump', sent).trimEnd().split('\n');
  assert.equal(lines.pop(), 'check ok');
  const status = JSON.parse(runPeer('etcdutl', 'snapshot', 'status', '-w', 'json', sent));
  assert.equal(status.revision, backend.currentRevision);
});

/** etcdutl opens the store for writing. */
function copyOf(path: string): string {
  const copy = join(folder, 'copy.db');
  writeFileSync(copy, readFileSync(path));
  return copy;
}
