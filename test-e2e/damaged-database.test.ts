// Goal: a database that is damaged anywhere ends the server with exit code 15, naming the file and what to do, or does not matter; it
// is never a bug, a signal, a hang, or a wrong answer where damage can be told. Method: a database with history (values large and
// small, deletions, leases, a compaction); rounds from a seed, each of which damages a copy, starts the real server on it, reads
// everything in every way (every other round), writes, compacts, defragments, and reads again.
//
// What cannot be told, here as in etcd: bytes of a value, or of a key within its order, that were changed in place. Answers are
// compared where whole pages are replaced, which always can.
//
//   KEELSON_DAMAGE_ROUNDS=100 rounds of each kind (2); KEELSON_SEED=n

import assert from 'node:assert/strict';
import { closeSync, cpSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { type Random, SeededRandom } from '../src/io/random.ts';
import { lmdbPageBytes } from '../src/storage-limits.ts';
import { EtcdClient, everything, expectOk, type Result } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const rounds = Number(process.env['KEELSON_DAMAGE_ROUNDS'] ?? 2);
const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);
/** A round takes about a second; one that takes this long hangs. */
const hangMs = 60_000;
const KEYS = 2000;
const directory = temporaryDirectory('damaged');
const sound = path.join(directory, 'sound');
const damaged = path.join(directory, 'damaged');
const databaseOf = (dataDir: string): string => path.join(dataDir, 'member/snap/keelson.mdb');
const keyOf = (i: number): Buffer => Buffer.from(`/registry/pods/ns-${i % 17}/pod-${i}`);
const deadlineMs = 30_000;

/** What every read answered, but for what a restart may change. */
type Answers = readonly [name: string, answer: string][];
let soundAnswers: Answers;
let revision = 0;

before(async () => {
  const server = ServerProcess.start({ dataDir: sound });
  const client = new EtcdClient(await server.whenReady());
  for (let lease = 1n; lease <= 20n; lease++) expectOk(await client.grant(lease, 1_000_000));
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < KEYS; i += 200) {
      const puts = Array.from({ length: 200 }, (_, at) => {
        const bytes = (i + at) % 300 === 0 ? 30_000 : 100 + (((i + at) * 7) % 500);
        const lease = (i + at) % 50 === 0 ? BigInt(1 + (i % 20)) : 0n;
        return client.put({ key: keyOf(i + at), value: Buffer.alloc(bytes, 65 + round), lease });
      });
      for (const result of await Promise.all(puts)) expectOk(result);
    }
    if (round !== 1) continue;
    for (let i = 0; i < KEYS; i += 9) expectOk(await client.deleteRange({ key: keyOf(i) }));
    const { header } = expectOk(await client.range({ key: keyOf(1) }));
    expectOk(await client.compact(header!.revision - 1500, true));
  }
  revision = expectOk(await client.range({ key: keyOf(1) })).header!.revision;
  client.close();
  assert.equal((await server.stop('SIGTERM')).code, 0);
  const run = await runOn(sound, new SeededRandom(1), Work.read);
  assert.deepEqual(run.exit, { code: 0, signal: null }, run.told);
  soundAnswers = run.answers!;
  assert.ok(
    soundAnswers.every(([, answer]) => !answer.startsWith('failed')),
    JSON.stringify(soundAnswers).slice(0, 500),
  );
});

after(() => removeDirectory(directory));

/** In random order: what comes first meets the damage. */
async function readAll(client: EtcdClient, random: Random, server: ServerProcess): Promise<Answers> {
  const answers: [string, string][] = [];
  const reads: (() => Promise<void>)[] = [];
  const read = <T>(name: string, ask: () => Promise<Result<T>>, text: (value: T) => string): void => {
    const note = (result: Result<T>): number =>
      answers.push([name, result.ok ? text(result.value) : `failed: ${result.code} ${result.message}`]);
    reads.push(async () => void note(await ask()));
  };
  for (const [name, options] of [
    ['all', {}],
    ['count', { countOnly: true }],
    ['keys', { keysOnly: true }],
    ['then', { revision: revision - 900 }],
    ['page', { limit: 300 }],
    ['sorted', { sortOrder: 2, sortTarget: 4, limit: 100 }],
  ] as const) {
    const ask = () => client.range({ ...everything, ...options }, { deadlineMs });
    read(name, ask, ({ count, kvs, more }) => {
      const shown = kvs.map(
        (kv) => `${kv.key} ${kv.createRevision} ${kv.modRevision} ${kv.version} ${kv.lease} ${kv.value}`,
      );
      return `${count} ${more} ${shown.join('\n')}`;
    });
  }
  for (const i of [1, 900, 1200]) {
    read(
      `get ${i}`,
      () => client.range({ key: keyOf(i) }, { deadlineMs }),
      ({ kvs }) => `${kvs[0]?.value}`,
    );
  }
  const collect = (name: string, method: string, request: Buffer): void =>
    read(
      name,
      () => client.collect(`/etcdserverpb.${method}`, request, { deadlineMs }),
      (parts) => `${parts.length > 0}`,
    );
  collect('stream', 'KV/RangeStream', Buffer.from([0x0a, 1, 0, 0x12, 1, 0]));
  collect('snapshot', 'Maintenance/Snapshot', Buffer.alloc(0));
  read(
    'hash',
    () => client.hashKv(revision),
    ({ hash }) => `${hash}`,
  );
  read(
    'lease',
    () => client.timeToLive(1n),
    ({ grantedTtl, keys }) => `${grantedTtl} ${keys.map(String).sort()}`,
  );
  reads.push(async () => {
    const events = await client.history(revision - 900, revision).catch((error: unknown) => `failed: ${error}`);
    const text =
      typeof events === 'string' ? events : events.map(({ kv }) => `${kv?.key} ${kv?.modRevision}`).join('\n');
    answers.push(['history', text]);
  });
  while (reads.length > 0 && server.exit === null) await reads.splice(random.below(reads.length), 1)[0]!();
  return answers.sort();
}

/** Errors are as good as answers here: what counts is how the server ends. */
async function writeMuch(client: EtcdClient): Promise<void> {
  const writes: Promise<unknown>[] = [];
  for (let i = 0; i < 700; i++) {
    const key = keyOf(i * 3);
    writes.push(i % 5 === 0 ? client.deleteRange({ key }) : client.put({ key, value: Buffer.alloc(200, 90) }));
  }
  await Promise.all(writes);
  await client.compact(revision - 100, true);
  await client.defragment();
}

const Work = { read: 0, readAndWrite: 1, write: 2 } as const;
type Work = (typeof Work)[keyof typeof Work];

interface Run {
  readonly exit: { readonly code: number | null; readonly signal: NodeJS.Signals | null };
  /** Before anything was written; null when that was not asked for, or the server ended before. */
  readonly answers: Answers | null;
  readonly message: string;
  /** For a failure's text. */
  readonly told: string;
}

async function runOn(dataDir: string, random: Random, work: Work): Promise<Run> {
  const server = ServerProcess.start({ dataDir });
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    server.child.kill('SIGKILL');
  }, hangMs);
  const ended = server.exited.then(() => null);
  let answers: Answers | null = null;
  try {
    const client = new EtcdClient(await server.whenReady());
    // A response of damaged bytes may not parse: an answer, too.
    const orFailed = <T>(work: Promise<T>): Promise<T | null> => Promise.race([work.catch(() => null), ended]);
    if (work !== Work.write) answers = await orFailed(readAll(client, random, server));
    if (work !== Work.read && server.exit === null) {
      await orFailed(writeMuch(client));
      if (server.exit === null) await orFailed(readAll(client, random, server));
    }
    client.close();
    if (server.exit === null) await server.stop('SIGTERM');
  } catch {
    // It ended before it was ready.
  }
  const exit = await server.exited;
  clearTimeout(timer);
  const line = server.fatalLine();
  const message = `${line?.msg ?? ''} ${line?.['database'] ?? ''}`;
  return { exit, answers, message, told: `${hung ? 'it hung; ' : ''}${message}\n${server.output.slice(-1500)}` };
}

function damage(file: string, kind: string, random: Random): void {
  const content = readFileSync(file);
  const pageCount = Math.floor(content.length / lmdbPageBytes);
  const descriptor = openSync(file, 'r+');
  const write = (content: Buffer, at: number): void => void writeSync(descriptor, content, 0, content.length, at);
  const noise = (length: number): Buffer => {
    const content = Buffer.alloc(length);
    random.fill(content);
    return content;
  };
  const anyPage = (): number => 2 + random.below(pageCount - 2);
  /** A page with a head: a value's own pages, but for the first, have none, and damage there cannot be told. */
  const page = (): number => {
    for (;;) {
      const number = anyPage();
      if (content.readUInt32LE(number * lmdbPageBytes) === number) return number;
    }
  };
  const pageOf = (number: number): Buffer => content.subarray(number * lmdbPageBytes, (number + 1) * lmdbPageBytes);
  const times = kind === 'forty pieces' ? 40 : 1 + random.below(3);
  for (let i = 0; i < times; i++) {
    const at = page() * lmdbPageBytes;
    if (kind === 'a meta page') write(noise(1 + random.below(8)), random.below(2) * lmdbPageBytes + random.below(170));
    else if (kind === 'a byte near a head') write(noise(1), at + random.below(60));
    else if (kind === 'a head') write(noise(24), at);
    else if (kind === 'a page of zeros') write(Buffer.alloc(lmdbPageBytes), at);
    else if (kind === 'a page of noise') write(noise(lmdbPageBytes), at);
    else if (kind === 'another page') write(pageOf(page()), at);
    else if (kind === 'another page under its number') write(pageOf(page()).subarray(8), at + 8);
    else write(noise(64), 2 * lmdbPageBytes + random.below(content.length - 2 * lmdbPageBytes - 64));
  }
  closeSync(descriptor);
}

const replaced = new Set(['a head', 'a page of zeros', 'a page of noise', 'another page']);
const others = ['a meta page', 'a byte near a head', 'another page under its number', 'some pieces', 'forty pieces'];

for (const kind of [...replaced, ...others]) {
  test(`${kind}: exit code 15 with the file and what to do, or no difference`, async (t) => {
    let alive = 0;
    for (let round = 0; round < rounds; round++) {
      const random = new SeededRandom(seed + round);
      rmSync(damaged, { recursive: true, force: true });
      cpSync(sound, damaged, { recursive: true });
      damage(databaseOf(damaged), kind, random);
      // Reads first meet most of the damage: every other round leaves it to the writes.
      const work = (seed + round) % 2 === 0 ? Work.readAndWrite : Work.write;
      const run = await runOn(damaged, random, work);
      const where = `KEELSON_SEED=${seed + round}: ${JSON.stringify(run.exit)} ${run.told}`;
      if (run.exit.code === 0) {
        alive++;
        if (replaced.has(kind) && work !== Work.write) assert.deepEqual(run.answers, soundAnswers, where);
        continue;
      }
      assert.deepEqual(run.exit, { code: 15, signal: null }, where);
      assert.match(run.message, /is damaged: |has applied entry/, where);
      assert.ok(run.message.includes(databaseOf(damaged)), where);
      assert.match(run.message, /[Rr]estore /, where);
    }
    t.diagnostic(`from seed ${seed} on: ${alive} of ${rounds} went on`);
  });
}
