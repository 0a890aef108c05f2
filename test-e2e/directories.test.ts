// Goal: what surrounds the data directory does not stop a member or go unsaid: a working directory that is gone, a place where no
// directory can be made, permissions that let others in. Method: the real launcher, started from such places; etcd's words where it
// has some.

import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, rmdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { keelsonBin, removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

let directory: string;
const started: ServerProcess[] = [];
beforeEach(() => {
  directory = temporaryDirectory('directories');
});
afterEach(async () => {
  for (const member of started.splice(0)) if (member.exit === null) await member.stop('SIGKILL');
  removeDirectory(directory);
});

function run(...args: Parameters<typeof ServerProcess.run>): ServerProcess {
  const member = ServerProcess.run(...args);
  started.push(member);
  return member;
}

const key = Buffer.from('k');

function flags(dataDir: string, ...more: string[]): string[] {
  return [
    `--data-dir=${dataDir}`,
    '--listen-client-urls=http://127.0.0.1:0',
    '--advertise-client-urls=http://127.0.0.1:2379',
    '--listen-peer-urls=http://127.0.0.1:0',
    ...more,
  ];
}

/** Put, read, snapshot, defragment, scrape: whatever begins a thread or looks at a file. */
async function assertWorks(address: string): Promise<void> {
  const client = new EtcdClient(address);
  expectOk(await client.put({ key, value: Buffer.alloc(1000) }));
  assert.equal(expectOk(await client.range({ key })).kvs.length, 1);
  const parts = expectOk(await client.collect('/etcdserverpb.Maintenance/Snapshot', Buffer.alloc(0)));
  assert.ok(Buffer.concat(parts).length > 1000);
  expectOk(await client.defragment());
  expectOk(await client.put({ key, value: key }));
  client.close();
  assert.equal((await fetch(`http://${address}/metrics`)).status, 200);
  assert.equal((await fetch(`http://${address}/health`)).status, 200);
}

/** In a directory that is removed before the server begins. */
function startWithoutDirectory(args: readonly string[]): ServerProcess {
  const gone = path.join(directory, 'gone');
  mkdirSync(gone);
  const script = `cd '${gone}' && rmdir '${gone}' && exec '${keelsonBin}' "$@"`;
  return run(['-c', script, 'sh', ...args], {}, { file: '/bin/sh' });
}

test('a working directory that is gone before the start is not needed', async () => {
  const dataDir = path.join(directory, 'data');
  const member = startWithoutDirectory(flags(dataDir));
  await assertWorks(await member.whenReady());
  assert.equal((await member.stop('SIGTERM')).code, 0);
  // And over a database that is there.
  const again = startWithoutDirectory(flags(dataDir));
  await assertWorks(await again.whenReady());
  assert.equal((await again.stop('SIGTERM')).code, 0);
});

test('a working directory that goes while the member runs is not missed', async () => {
  const cwd = path.join(directory, 'cwd');
  mkdirSync(cwd);
  const member = run(flags(path.join(directory, 'data')), {}, { cwd });
  const address = await member.whenReady();
  rmdirSync(cwd);
  await assertWorks(address);
  assert.equal((await member.stop('SIGTERM')).code, 0);
});

test('a relative data directory means the place where the start was, also after that is gone', async () => {
  const cwd = path.join(directory, 'cwd');
  mkdirSync(cwd);
  const member = run(flags('../data', '--wal-dir=../wal'), {}, { cwd });
  const address = await member.whenReady();
  rmdirSync(cwd);
  await assertWorks(address);
  assert.equal((await member.stop('SIGTERM')).code, 0);
  assert.ok(statSync(path.join(directory, 'data/member/snap/keelson.mdb')).size > 0);
  assert.ok(statSync(path.join(directory, 'wal')).isDirectory());
  const nowhere = startWithoutDirectory(flags('data'));
  assert.equal((await nowhere.exited).code, 14, nowhere.output);
  assert.match(nowhere.fatalLine()?.msg ?? '', /working directory .* gone.*--data-dir .*data/);
});

test('where no directory can be made: the system’s reason in etcd’s words, at once', async () => {
  for (const [place, more] of [
    ['/proc/x', []],
    [path.join(directory, 'data'), ['--wal-dir=/proc/x']],
  ] as const) {
    const member = run(flags(place, ...more));
    const exit = await Promise.race([member.exited, sleep(10_000, null, { ref: false })]);
    if (exit === null) await member.stop('SIGKILL');
    assert.deepEqual(exit, { code: 14, signal: null }, member.output);
    assert.match(
      member.fatalLine()?.msg ?? '',
      /\/proc\/x cannot be used: mkdir \/proc\/x: no such file or directory$/,
    );
  }
});

test('a data directory that others may enter is told of, as by etcd; one that is ours is not', async () => {
  const told = async (dataDir: string): Promise<unknown[]> => {
    const member = run(flags(dataDir));
    await member.whenReady();
    assert.equal((await member.stop('SIGTERM')).code, 0);
    const lines = member.logLines().filter(({ msg }) => msg === 'check file permission');
    for (const { level } of lines) assert.equal(level, 'warn');
    return lines.map((line) => line['error']);
  };
  const dataDir = path.join(directory, 'data');
  const textFor = (name: string, mode: string): string =>
    `directory "${name}" exist, but the permission is "${mode}". The recommended permission is "-rwx------" to prevent ` +
    'possible unprivileged access to the data';
  assert.deepEqual(await told(dataDir), []);
  assert.deepEqual(await told(dataDir), []);
  chmodSync(dataDir, 0o777);
  assert.deepEqual(await told(dataDir), [textFor(dataDir, 'drwxrwxrwx')]);
  chmodSync(dataDir, 0o3750);
  chmodSync(path.join(dataDir, 'member'), 0o711);
  const member = path.join(dataDir, 'member');
  assert.deepEqual(await told(dataDir), [textFor(dataDir, 'dgtrwxr-x---'), textFor(member, 'drwx--x--x')]);
  // The mode stays the operator's: nothing was changed by itself.
  assert.equal(statSync(dataDir).mode & 0o7777, 0o3750);
});
