// Goal: a member starts only on what belongs together, and says what to do otherwise. Method: real folders from which the test takes
// or into which it puts what does not belong; the exit code and the message of each refusal.

import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { type DiskLock, nodeDisk } from '../io/file.ts';
import { LmdbEnvironment } from '../io/lmdb.ts';
import { AuthKey, MetaKey } from '../snapshot/schema.ts';
import { backendLimits } from '../storage-limits.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { authRevisionOf } from './auth-state.ts';
import type { Member } from './member.ts';

let fixture: MemberFixture;

afterEach(() => fixture.remove());

async function refusal(...flags: string[]): Promise<FatalError> {
  try {
    await fixture.open(...flags);
  } catch (error) {
    assert.ok(error instanceof FatalError, String(error));
    return error;
  }
  throw new Error('it started');
}

/** The locks of data directories and logs that are held: one that is only forgotten would be freed by the collector of garbage. */
const held = new Set<DiskLock>();
const { lock: realLock } = nodeDisk;
before(() => {
  nodeDisk.lock = (file) => {
    const lock = realLock(file);
    if (lock === null) return null;
    held.add(lock);
    return {
      release: () => {
        held.delete(lock);
        lock.release();
      },
    };
  };
});
after(() => {
  nodeDisk.lock = realLock;
});

/** Until a start that was refused has let go of everything, which takes a message of its flusher. */
async function released(): Promise<void> {
  for (let attempt = 0; held.size > 0; attempt++) {
    assert.ok(attempt < 500, `${held.size} locks are held`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const path = (...parts: string[]): string => join(fixture.folder, 'data', 'member', ...parts);

/** Puts another value into the closed database; returns the one before, if there was one. */
function storeEntry(tableName: string, key: Buffer, value: Buffer): Buffer | undefined {
  const environment = new LmdbEnvironment({ path: path('snap', 'keelson.mdb') });
  const table = environment.table(tableName);
  const found = table.get(key);
  const before = found === undefined ? undefined : Buffer.from(found);
  environment.transaction(() => table.put(key, value));
  environment.close();
  return before;
}

/** The first key of a table of the closed database. */
function firstKey(tableName: string): Buffer {
  const environment = new LmdbEnvironment({ path: path('snap', 'keelson.mdb') });
  let first: Buffer | undefined;
  environment.table(tableName).scan(undefined, undefined, (key) => {
    first = Buffer.from(key);
    return false;
  });
  environment.close();
  assert.ok(first !== undefined, `${tableName} has an entry`);
  return first;
}

async function runOnce(puts: number): Promise<void> {
  await fixture.start();
  for (let i = 0; i < puts; i++) await fixture.put(`k${i}`, 'v');
  await fixture.stop();
}

describe('a start that must not be', () => {
  it("on etcd's own database", async () => {
    fixture = new MemberFixture();
    mkdirSync(path('snap'), { recursive: true });
    writeFileSync(path('snap', 'db'), '');
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.dataDir);
    assert.match(error.message, /member\/snap\/db is a database of etcd.*snapshot/);
  });

  it('in a folder that cannot be one', async () => {
    fixture = new MemberFixture();
    writeFileSync(join(fixture.folder, 'data'), 'a file');
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.dataDir);
    assert.match(error.message, /^the data directory .*\/data cannot be used: /);
  });

  it('beside a member that runs', async () => {
    fixture = new MemberFixture();
    await fixture.start();
    const other = new MemberFixture(fixture.folder);
    await assert.rejects(other.open(), (error) => {
      assert.ok(error instanceof FatalError);
      assert.equal(error.exitCode, ExitCode.dataDir);
      assert.match(error.message, /is in use by another process/);
      return true;
    });
    await fixture.stop();
  });

  it('with a database but no log', async () => {
    fixture = new MemberFixture();
    await runOnce(3);
    rmSync(path('wal'), { recursive: true });
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.backendCorrupt);
    assert.match(error.message, /keelson\.mdb has applied entry \d+/);
  });

  it('with a database that is ahead of its log', async () => {
    fixture = new MemberFixture();
    await runOnce(1);
    // The log as it was, the database as it becomes.
    const saved = join(fixture.folder, 'old-wal');
    mkdirSync(saved);
    for (const name of readdirSync(path('wal'))) copyFileSync(path('wal', name), join(saved, name));
    await runOnce(20);
    rmSync(path('wal'), { recursive: true });
    renameSync(saved, path('wal'));
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.backendCorrupt);
    assert.match(error.message, /has applied entry \d+, but the log in .*\/wal ends at \d+: the log was removed or is/);
    assert.match(error.message, /Restore the log, or restore from a snapshot$/);
    await released();
  });

  it('on a damaged log, and lets go of everything, so that the next start finds nothing in its way', async () => {
    fixture = new MemberFixture();
    await runOnce(5);
    const segment = path('wal', readdirSync(path('wal')).find((name) => /^0.*\.wal$/.test(name))!);
    const whole = readFileSync(segment);
    const damaged = Buffer.from(whole);
    // In the header: nothing that follows can be read.
    damaged.fill(0xee, 20, 40);
    writeFileSync(segment, damaged);
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.walCorrupt);
    await released();
    writeFileSync(segment, whole);
    await fixture.start();
    assert.equal(fixture.member.parts.store.currentRevision, 6);
    await fixture.stop();
  });

  it('on a database with damaged numbers, the same', async () => {
    fixture = new MemberFixture();
    await runOnce(5);
    const whole = storeEntry('meta', MetaKey.consistentIndex, Buffer.from([1]))!;
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.backendCorrupt);
    assert.match(error.message, /meta\/consistent_index is no counter/);
    await released();
    storeEntry('meta', MetaKey.consistentIndex, whole);
    await fixture.start();
    assert.equal(fixture.member.parts.store.currentRevision, 6);
    await fixture.stop();
  });

  it('on a database of another version, which is not damaged, and is left as it is', async () => {
    fixture = new MemberFixture();
    await runOnce(5);
    const key = Buffer.from('state');
    const other = Buffer.alloc(40);
    other.writeUInt32BE(2);
    const own = storeEntry('keelson', key, other)!;
    const file = readFileSync(path('snap', 'keelson.mdb'));
    const error = await refusal();
    assert.equal(error.exitCode, ExitCode.dataDir);
    assert.equal(
      error.message,
      `the database ${path('snap', 'keelson.mdb')} was written by another version of keelson: its format is 2, this version ` +
        'reads format 1. It is not damaged: run the version that wrote it',
    );
    await released();
    assert.ok(readFileSync(path('snap', 'keelson.mdb')).equals(file), 'nothing was written to it');
    storeEntry('keelson', key, own);
    await fixture.start();
    assert.equal(fixture.member.parts.store.currentRevision, 6);
    await fixture.stop();
  });

  it('on side state that does not parse, and says which', async () => {
    const noise = Buffer.from([0xff, 0xff, 0xff]);
    const refused = [
      { table: 'meta', key: () => MetaKey.confState, says: /^the database is damaged: its confState does not parse; / },
      {
        table: 'lease',
        key: () => Buffer.alloc(8, 1),
        says: /^the database is damaged: a stored lease does not parse; /,
      },
      {
        table: 'members',
        key: () => firstKey('members'),
        says: /^the database is damaged: its membership: .*; restore it/,
      },
    ];
    for (const { table, key, says } of refused) {
      fixture = new MemberFixture();
      await runOnce(2);
      storeEntry(table, key(), noise);
      const error = await refusal();
      assert.match(error.message, says);
      assert.equal(error.exitCode, ExitCode.backendCorrupt);
      await released();
      fixture.remove();
    }
  });

  it('with flags that contradict each other, as long as there is no data', async () => {
    const flags = ['--initial-cluster=other=http://127.0.0.1:2380'];
    fixture = new MemberFixture();
    const error = await refusal(...flags);
    assert.equal(error.exitCode, ExitCode.bug);
    assert.match(error.message, /couldn't find local name "m1" in the initial cluster configuration/);
    await released();
    fixture.remove();
    fixture = new MemberFixture();
    await runOnce(1);
    await fixture.start(...flags);
    assert.equal(fixture.member.parts.store.currentRevision, 2, 'a member with data ignores them, as in etcd');
    await fixture.stop();
  });
});

/** What a crash leaves of a member that runs: a copy of its files, its lock left out. */
function crashCopy(): MemberFixture {
  const copy = new MemberFixture();
  for (const folder of ['wal', 'snap']) {
    mkdirSync(join(copy.folder, 'data/member', folder), { recursive: true, mode: 0o700 });
    for (const name of readdirSync(path(folder))) {
      copyFileSync(path(folder, name), join(copy.folder, 'data/member', folder, name));
    }
  }
  return copy;
}

function hashOf(member: Member): Promise<number> {
  const { backend, store } = member.parts;
  return new Promise((resolve) => backend.hashKv(store.currentRevision, -1, resolve));
}

describe('a start after a crash', () => {
  it('replays a log far longer than its memory in slices, and comes to the same', async () => {
    fixture = new MemberFixture();
    await fixture.start('--backend-batch-interval=1h', '--backend-batch-limit=1000000');
    const puts = 12_000;
    for (let i = 0; i < puts; i += 1000) {
      await Promise.all(Array.from({ length: 1000 }, (_, j) => fixture.put(`k${(i + j) % 700}`, 'v'.repeat(300))));
    }
    assert.ok(fixture.member.parts.backend.durableIndex < 10, 'nearly all of it is in the log alone');
    const straight = crashCopy();
    const sliced = crashCopy();
    const bounds = { backlogBytesMax: 100_000, indexLagEntriesMax: 300, mergeEntries: 150, commitRows: 100 };
    sliced.limits = { ...backendLimits, ...bounds, slabBytes: 32_768, mergeSliceKeys: 50, mergeStepKeys: 10 };
    try {
      await straight.start();
      const member = await sliced.open();
      const { backend } = member.parts;
      const most = { backlog: 0, entries: 0, waits: 0 };
      const { endApply, whenRoom } = backend;
      backend.endApply = (index, term) => {
        endApply.call(backend, index, term);
        most.backlog = Math.max(most.backlog, backend.backlog());
        most.entries = Math.max(most.entries, backend.index.activeEntries);
      };
      backend.whenRoom = (done) => {
        most.waits++;
        whenRoom.call(backend, done);
      };
      await new Promise<void>((ready) => member.start(ready));
      // An entry that is begun below a bound ends above it.
      assert.ok(most.backlog <= bounds.backlogBytesMax + 1000, `${most.backlog} bytes at once`);
      assert.ok(most.entries <= bounds.indexLagEntriesMax + 1, `${most.entries} changes of the index at once`);
      assert.ok(most.waits > puts / 1000, `it waited ${most.waits} times`);
      assert.equal(member.parts.store.currentRevision, puts + 1);
      assert.equal(await hashOf(member), await hashOf(straight.member));
      assert.equal(backend.index.liveKeyCount(), 700);
      for (const one of [straight, sliced]) await one.stop();
    } finally {
      straight.remove();
      sliced.remove();
      await fixture.stop();
    }
  });

  it('replays what the log has and the database has not', async () => {
    fixture = new MemberFixture();
    await fixture.start('--backend-batch-interval=1h');
    for (let i = 0; i < 10; i++) await fixture.put(`k${i}`, 'v');
    const copy = crashCopy();
    try {
      const member = await copy.start();
      assert.equal(member.parts.store.currentRevision, 11);
      assert.equal(copy.logged('restarting local member').length, 1);
      // But that a busy machine took long over an apply.
      const complaints = copy.lines.filter(
        (line) => /"level":"(warn|error)"/.test(line) && !/took too long/.test(line),
      );
      assert.deepEqual(complaints, []);
    } finally {
      await copy.stop();
      copy.remove();
      await fixture.stop();
    }
  });
});

it('an authRevision that is no number is damage, to whoever asks for it', async () => {
  fixture = new MemberFixture();
  await runOnce(1);
  storeEntry('auth', AuthKey.revision, Buffer.alloc(8, 0).fill(7, 7));
  await fixture.start();
  assert.equal(authRevisionOf(fixture.member.parts.backend), 7);
  await fixture.stop();
  storeEntry('auth', AuthKey.revision, Buffer.from('seven'));
  await fixture.start();
  assert.throws(
    () => authRevisionOf(fixture.member.parts.backend),
    new FatalError(
      ExitCode.backendCorrupt,
      'the database is damaged: authRevision is no number; restore it from a snapshot',
    ),
  );
  await fixture.stop();
});
