// Goal: a disk that is full or damaged ends the server with its own exit code and a message that says what to do, and loses
// nothing acknowledged. Method: a real server on a small tmpfs (needs the right to mount, otherwise skipped), filled until it
// stops, then started again on a copy with room and checked against the model of crash.test.ts; and logs and databases damaged by
// hand.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CrashRun } from './support/crash-run.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

/** base/fatal.ts; written out, because operators rely on the numbers. */
const Exit = { walCorrupt: 10, diskFull: 13, dataDir: 14, backendCorrupt: 15 } as const;
const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);

let root: string;
beforeEach(() => {
  root = temporaryDirectory('disk');
});
afterEach(() => removeDirectory(root));

class SmallDisk {
  readonly path: string;

  constructor(megabytes: number) {
    this.path = path.join(root, 'small');
    mkdirSync(this.path);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'keelson-test', this.path], { stdio: 'pipe' });
  }

  grow(megabytes: number): void {
    execFileSync('mount', ['-o', `remount,size=${megabytes}m`, this.path], { stdio: 'pipe' });
  }

  unmount(): void {
    execFileSync('umount', ['-l', this.path], { stdio: 'pipe' });
  }
}

/** Why no file system can be mounted here, or false. */
function mountRefusal(): string | false {
  const probe = temporaryDirectory('mount');
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'keelson-test', probe], { stdio: 'pipe' });
    execFileSync('umount', [probe], { stdio: 'pipe' });
    return false;
  } catch (error) {
    const stderr = (error as { stderr?: Buffer }).stderr?.toString().trim() ?? String(error);
    return `needs the right to mount a tmpfs: ${stderr}`;
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}

const skip = mountRefusal();

/** Loads `run` until the disk is full and the server has stopped by itself. */
async function fill(run: CrashRun): ReturnType<CrashRun['loadAndStrike']> {
  const strike = async (server: ServerProcess): Promise<void> => {
    const inTime = await Promise.race([server.exited.then(() => true), sleep(60_000, false)]);
    assert.ok(inTime, 'the disk did not fill up, or the server went on');
  };
  const load = { inFlight: 6, valueBytesMax: 60_000, compacts: false, defragments: false };
  const log = await run.loadAndStrike({ strike, load });
  assertStoppedFull(run.server!);
  assert.ok(log.acknowledged.length > 10, 'some writes were acknowledged before');
  return log;
}

function assertStoppedFull(server: ServerProcess): void {
  assert.deepEqual(server.exit, { code: Exit.diskFull, signal: null }, server.output.slice(-2000));
  const fatal = server.fatalLine();
  assert.equal(fatal?.['exit-code'], Exit.diskFull);
  assert.match(fatal?.msg ?? '', /full/);
  assert.match(fatal?.msg ?? '', /\//, 'names what could not be written');
}

describe(`a full disk (KEELSON_SEED=${seed})`, { skip }, () => {
  // A segment of the WAL is 64 MB of zeros from its start, and from its middle on the next one is made ready.
  const cases = [
    { name: 'under data and WAL', dataOnSmall: true, walOnSmall: true, megabytes: 76 },
    { name: 'under the WAL alone', dataOnSmall: false, walOnSmall: true, megabytes: 70 },
    { name: 'under the database alone', dataOnSmall: true, walOnSmall: false, megabytes: 8 },
  ];
  for (const { name, dataOnSmall, walOnSmall, megabytes } of cases) {
    test(`${name}: exit 13, nothing acknowledged lost once there is room`, async () => {
      const run = new CrashRun(seed);
      const disk = new SmallDisk(megabytes);
      removeDirectory(run.directory);
      try {
        run.directory = path.join(dataOnSmall ? disk.path : root, 'data');
        run.walDir = path.join(walOnSmall ? disk.path : root, 'wal');
        const log = await fill(run);
        // Still full: it says the same again, whatever it gets to, and damages nothing.
        const again = ServerProcess.start({ dataDir: run.directory, walDir: run.walDir });
        await Promise.race([again.exited, again.whenReady().catch(() => {})]);
        if (again.exit === null) await again.stop('SIGKILL');
        else assertStoppedFull(again);
        const roomy = path.join(root, 'roomy');
        cpSync(run.directory, path.join(roomy, 'data'), { recursive: true });
        cpSync(run.walDir, path.join(roomy, 'wal'), { recursive: true });
        run.directory = path.join(roomy, 'data');
        run.walDir = path.join(roomy, 'wal');
        await run.restartAndCheck(log);
        assert.equal((await run.server!.stop('SIGTERM')).code, 0);
      } finally {
        run.end();
        disk.unmount();
      }
    });
  }

  for (const { megabytes, prepared } of [
    { megabytes: 190, prepared: false },
    { megabytes: 400, prepared: true },
  ]) {
    const title = prepared ? 'is prepared' : 'takes no room before its time';
    test(`${megabytes} MB: the next segment of the log ${title}`, async () => {
      const disk = new SmallDisk(megabytes);
      try {
        const dataDir = path.join(disk.path, 'data');
        const server = ServerProcess.start({ dataDir });
        const client = new EtcdClient(await server.whenReady());
        const put = async (): Promise<void> => {
          expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.alloc(1_000_000, 'v') }));
        };
        // A little beyond the middle of the first segment.
        for (let i = 0; i < 40; i++) await put();
        const spare = (): boolean => readdirSync(path.join(dataDir, 'member', 'wal')).includes('spare.wal');
        if (prepared) for (let i = 0; i < 100 && !spare(); i++) await sleep(100);
        assert.equal(spare(), prepared);
        const line = server.logLine('too little free space to prepare the next WAL segment');
        assert.equal(line === undefined, prepared);
        if (!prepared) {
          assert.ok(Number(line!['free-bytes']) < 128_000_000, JSON.stringify(line));
          // It goes on into a second segment where one that is written in advance would have left no room.
          for (let i = 0; i < 30; i++) await put();
          assert.equal(server.exit, null);
        }
        client.close();
        assert.equal((await server.stop('SIGTERM')).code, 0);
      } finally {
        disk.unmount();
      }
    });
  }

  test('too small for a log: exit 13 at the first start, a member once there is room', async () => {
    const disk = new SmallDisk(8);
    try {
      const dataDir = path.join(disk.path, 'data');
      const server = ServerProcess.start({ dataDir });
      await server.exited;
      assertStoppedFull(server);
      disk.grow(200);
      const again = ServerProcess.start({ dataDir });
      const client = new EtcdClient(await again.whenReady());
      const { header } = expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.from('v') }));
      assert.equal(header?.revision, 2);
      client.close();
      assert.equal((await again.stop('SIGTERM')).code, 0);
    } finally {
      disk.unmount();
    }
  });
});

// --- damage ---

const putCount = 40;

/** A server's directory whose writes are in the log alone, ended by SIGKILL. Keys p0, p1, ... with 300 bytes each. */
async function writtenDirectory(): Promise<string> {
  const dataDir = path.join(root, 'data');
  const server = ServerProcess.start({ dataDir, flags: ['--backend-batch-interval=1h'] });
  const client = new EtcdClient(await server.whenReady());
  for (let i = 0; i < putCount; i++) {
    expectOk(await client.put({ key: Buffer.from(`p${i}`), value: Buffer.alloc(300, i + 1) }));
  }
  client.close();
  await server.stop('SIGKILL');
  return dataDir;
}

function onlySegment(dataDir: string): string {
  const wal = path.join(dataDir, 'member', 'wal');
  const segments = readdirSync(wal).filter((name) => name.endsWith('.wal'));
  assert.equal(segments.length, 1);
  return path.join(wal, segments[0]!);
}

/** Behind the last byte that was written: segments are filled with zeros in advance. */
function writtenEnd(file: string): number {
  const bytes = readFileSync(file);
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
}

/** Names and hashes of the files that hold data. */
function digest(directory: string): string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /\.(wal|mdb)$/.test(name),
  );
  return names.sort().map((name) => {
    const bytes = readFileSync(path.join(directory, name));
    return `${name} ${bytes.length} ${createHash('sha256').update(bytes).digest('hex')}`;
  });
}

/** How many of the puts are there; they must be the first ones, whole. */
async function survivingPuts(dataDir: string): Promise<number> {
  const server = ServerProcess.start({ dataDir });
  const client = new EtcdClient(await server.whenReady());
  const answer = expectOk(await client.range({ key: Buffer.from('p'), rangeEnd: Buffer.from('q') }));
  const byKey = new Map(answer.kvs.map((kv) => [kv.key.toString(), kv]));
  for (let i = 0; i < byKey.size; i++) {
    const kv = byKey.get(`p${i}`);
    assert.deepEqual(kv?.value, Buffer.alloc(300, i + 1), `p${i} of ${byKey.size}`);
    assert.equal(kv?.modRevision, i + 2);
  }
  assert.equal(answer.header?.revision, byKey.size + 1);
  // It serves: the next write gets the next revision.
  const next = expectOk(await client.put({ key: Buffer.from('next'), value: Buffer.alloc(0) }));
  assert.equal(next.header?.revision, byKey.size + 2);
  client.close();
  assert.equal((await server.stop('SIGTERM')).code, 0);
  return byKey.size;
}

for (const how of ['cut off', 'zeroed', 'overwritten with garbage'] as const) {
  test(`a torn tail, ${how}, is dropped and the rest served`, async () => {
    const dataDir = await writtenDirectory();
    const segment = onlySegment(dataDir);
    const end = writtenEnd(segment);
    const at = end - 100;
    if (how === 'cut off') truncateSync(segment, at);
    else {
      const bytes = readFileSync(segment);
      if (how === 'zeroed') bytes.fill(0, at, end);
      else for (let i = at; i < end; i++) bytes[i] = (i * 7919) & 0xff;
      writeFileSync(segment, bytes);
    }
    const count = await survivingPuts(dataDir);
    assert.ok(count >= putCount - 2 && count < putCount, `${count} of ${putCount} puts are left`);
    // Once repaired it stays so, the new write behind it.
    assert.equal(await restartedRevision(dataDir), count + 2);
  });
}

async function restartedRevision(dataDir: string): Promise<number> {
  const server = ServerProcess.start({ dataDir });
  const client = new EtcdClient(await server.whenReady());
  const { header } = expectOk(await client.range({ key: Buffer.from('next') }));
  client.close();
  await server.stop('SIGKILL');
  return header!.revision;
}

/** Starts on damaged files: refused with `code`, the message says what and where, and nothing is changed. */
async function assertRefused(dataDir: string, code: number, message: RegExp): Promise<void> {
  const before = digest(dataDir);
  const server = ServerProcess.start({ dataDir });
  assert.deepEqual(await server.exited, { code, signal: null }, server.output.slice(-2000));
  const fatal = server.fatalLine();
  assert.equal(fatal?.['exit-code'], code);
  assert.match(fatal?.msg ?? '', message);
  assert.equal(server.logLine('ready to serve client requests'), undefined);
  assert.deepEqual(digest(dataDir), before, 'a refused start changes nothing');
}

test('damage in the middle of the log is refused with exit code 10, naming file and offset', async () => {
  const dataDir = await writtenDirectory();
  const segment = onlySegment(dataDir);
  const whole = readFileSync(segment);
  const end = writtenEnd(segment);
  for (const at of [20, Math.floor(end / 3), Math.floor(end / 2), end - 900]) {
    const bytes = Buffer.from(whole);
    bytes[at]! ^= 0x10;
    writeFileSync(segment, bytes);
    await assertRefused(dataDir, Exit.walCorrupt, new RegExp(`${path.basename(segment)} is damaged at offset \\d+`));
  }
  writeFileSync(segment, whole);
  assert.equal(await survivingPuts(dataDir), putCount);
});

test("a log that is gone, or is another member's, is refused", async () => {
  const dataDir = path.join(root, 'data');
  const server = ServerProcess.start({ dataDir });
  const client = new EtcdClient(await server.whenReady());
  for (let i = 0; i < 5; i++) expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.alloc(10) }));
  client.close();
  assert.equal((await server.stop('SIGTERM')).code, 0);
  const wal = path.join(dataDir, 'member', 'wal');
  cpSync(wal, path.join(root, 'kept'), { recursive: true });
  rmSync(wal, { recursive: true });
  await assertRefused(dataDir, Exit.backendCorrupt, /has applied entry \d+, but there is no log in .*wal/);
  rmSync(wal, { recursive: true });
  cpSync(path.join(root, 'kept'), wal, { recursive: true });
  const back = ServerProcess.start({ dataDir });
  await back.whenReady();
  assert.equal((await back.stop('SIGTERM')).code, 0);
});

test('a damaged database is refused with exit code 15', async () => {
  const dataDir = path.join(root, 'data');
  const server = ServerProcess.start({ dataDir });
  const client = new EtcdClient(await server.whenReady());
  expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.alloc(100_000) }));
  client.close();
  assert.equal((await server.stop('SIGTERM')).code, 0);
  const file = path.join(dataDir, 'member', 'snap', 'keelson.mdb');
  const whole = readFileSync(file);
  truncateSync(file, 40_000);
  await assertRefused(dataDir, Exit.backendCorrupt, /keelson\.mdb is damaged/);
  const bytes = Buffer.from(whole);
  bytes.fill(0x55, 0, 16_384);
  writeFileSync(file, bytes);
  await assertRefused(dataDir, Exit.backendCorrupt, /keelson\.mdb is damaged/);
});

test("a data directory that is no directory, or etcd's, is refused with exit code 14", async () => {
  const file = path.join(root, 'file');
  writeFileSync(file, 'x');
  await assertRefusedPlain(file, /the data directory .*file cannot be used/);
  const etcds = path.join(root, 'etcds');
  mkdirSync(path.join(etcds, 'member', 'snap'), { recursive: true });
  writeFileSync(path.join(etcds, 'member', 'snap', 'db'), 'bolt');
  await assertRefusedPlain(etcds, /snap\/db is a database of etcd/);
});

async function assertRefusedPlain(dataDir: string, message: RegExp): Promise<void> {
  const server = ServerProcess.start({ dataDir });
  assert.deepEqual(await server.exited, { code: Exit.dataDir, signal: null }, server.output.slice(-2000));
  assert.match(server.fatalLine()?.msg ?? '', message);
}
