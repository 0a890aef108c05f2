// Goal: a member starts only on what belongs together, and says what to do otherwise. Method: real folders from which the test takes
// or into which it puts what does not belong; the exit code and the message of each refusal.

import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { MemberFixture } from '../testing/member-fixture.ts';

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

const path = (...parts: string[]): string => join(fixture.folder, 'data', 'member', ...parts);

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
  });

  it('with flags that contradict each other, as long as there is no data', async () => {
    const flags = ['--initial-cluster=other=http://127.0.0.1:2380'];
    fixture = new MemberFixture();
    const error = await refusal(...flags);
    assert.equal(error.exitCode, ExitCode.bug);
    assert.match(error.message, /couldn't find local name "m1" in the initial cluster configuration/);
    fixture.remove();
    fixture = new MemberFixture();
    await runOnce(1);
    await fixture.start(...flags);
    assert.equal(fixture.member.parts.store.currentRevision, 2, 'a member with data ignores them, as in etcd');
    await fixture.stop();
  });
});

describe('a start after a crash', () => {
  it('replays what the log has and the database has not', async () => {
    fixture = new MemberFixture();
    await fixture.start('--backend-batch-interval=1h');
    for (let i = 0; i < 10; i++) await fixture.put(`k${i}`, 'v');
    // As a crash leaves it: a copy of the files while the member runs, its lock left out.
    const copy = new MemberFixture();
    for (const folder of ['wal', 'snap']) {
      mkdirSync(join(copy.folder, 'data/member', folder), { recursive: true });
      for (const name of readdirSync(path(folder))) {
        copyFileSync(path(folder, name), join(copy.folder, 'data/member', folder, name));
      }
    }
    try {
      const member = await copy.start();
      assert.equal(member.parts.store.currentRevision, 11);
      assert.equal(copy.logged('restarting local member').length, 1);
      assert.deepEqual(
        copy.lines.filter((line) => /"level":"(warn|error)"/.test(line)),
        [],
      );
      await copy.stop();
    } finally {
      copy.remove();
      await fixture.stop();
    }
  });
});
