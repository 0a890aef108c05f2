// Goal: keelsonutl reads and restores snapshots as etcdutl does. Method: a seeded random history (puts, deletes, transactions,
// leases, compactions) on a real etcd, saved by keelsonctl; status and hashkv of both tools side by side; both tools restore it,
// a real etcd starts on the one and keelson on the other, and then the same commands, compactions and restarts must leave the
// same keys, revisions, leases and hashes. Then back: keelson's snapshot restored by etcdutl.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EtcdClient } from '../client/client.ts';
import { rpc } from '../client/rpc.ts';
import { SeededRandom } from '../io/random.ts';
import { freePort } from '../testing/free-port.ts';
import { peerBinary } from '../testing/peer-programs.ts';
import { keelsonctl, keelsonutl, type Member, type Result, runProgram, startEtcd } from './peer-fixture.ts';

const scratch = mkdtempSync(join(tmpdir(), 'keelsonutl-peer-'));
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const random = new SeededRandom(seed);
const snapshot = join(scratch, 'snapshot.db');
const processes: ChildProcess[] = [];

before(async () => {
  console.log(`keelsonutl.peer-test: seed ${seed}`);
  const etcd = await startEtcd(join(scratch, 'source'));
  processes.push(etcd.process);
  await writeHistory(etcd.endpoint);
  const saved = await runProgram(keelsonctl, ['--endpoints', etcd.endpoint, 'snapshot', 'save', snapshot]);
  assert.equal(saved.code, 0, saved.stderr);
});

after(() => {
  for (const child of processes) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

const keyOf = (): Buffer => Buffer.from(`key-${random.below(40)}`);
const randomValue = (): Buffer => Buffer.alloc(random.below(50), 'v');

async function writeHistory(endpoint: string): Promise<void> {
  const client = new EtcdClient({ endpoints: [endpoint] });
  const leases: bigint[] = [];
  for (let count = 0; count < 3; count++) leases.push((await client.call(rpc.leaseGrant, { ttl: 5000n })).id);
  let revision = 1;
  for (let step = 0; step < 600; step++) {
    const dice = random.below(20);
    if (dice < 11) {
      const lease = random.below(4) === 0 ? leases[random.below(leases.length)]! : 0n;
      revision = (await client.call(rpc.put, { key: keyOf(), value: randomValue(), lease })).header!.revision;
    } else if (dice < 15) {
      revision = (await client.call(rpc.deleteRange, { key: keyOf() })).header!.revision;
    } else if (dice === 15) {
      const key = Buffer.from(`key-${random.below(4)}`);
      revision = (await client.call(rpc.deleteRange, { key, rangeEnd: Buffer.from('key-3') })).header!.revision;
    } else if (dice < 19) {
      const keys = [...new Set([keyOf(), keyOf(), keyOf()].map(String))];
      const success = keys.map((key) =>
        random.below(3) === 0
          ? { requestDeleteRange: { key: Buffer.from(key) } }
          : { requestPut: { key: Buffer.from(key), value: randomValue() } },
      );
      revision = (await client.call(rpc.txn, { success })).header!.revision;
    } else if (step === 150 || random.below(8) === 0) {
      await client
        .call(rpc.compact, { revision: Math.max(2, revision - random.below(30)), physical: true })
        .catch(() => {});
    }
  }
  client.close();
}

/** Both tools on a copy of their own: etcdutl's hashkv writes to the file. */
async function sameTool(words: readonly string[], file = snapshot): Promise<void> {
  const run = async (name: string, program: string): Promise<Result> => {
    const copy = join(scratch, `copy-${name}`);
    copyFileSync(file, copy);
    // etcdutl makes the directory before it refuses.
    const directory = join(scratch, `never-${name}-${random.below(1_000_000_000)}`);
    const result = await runProgram(
      program,
      words.map((word) => word.replace('FILE', copy).replace('DIR', directory)),
    );
    return { ...result, stderr: result.stderr.replaceAll(copy, 'FILE').replaceAll(directory, 'DIR') };
  };
  const [theirs, ours] = await Promise.all([run('etcdutl', peerBinary('etcdutl')), run('keelsonutl', keelsonutl)]);
  const line = words.join(' ');
  assert.equal(ours.stdout.toString(), theirs.stdout.toString(), line);
  assert.equal(ours.code, theirs.code, `${line}\n${ours.stderr}\n${theirs.stderr}`);
  const firstLine = (result: Result): string =>
    result.stderr.split('\n').find((each) => each.startsWith('Error:')) ?? '';
  assert.equal(firstLine(ours), firstLine(theirs), line);
}

test('status and hashkv', async () => {
  for (const format of ['simple', 'json', 'fields', 'table', 'protobuf', 'nonsense']) {
    await sameTool(['snapshot', 'status', 'FILE', '-w', format]);
    await sameTool(['hashkv', 'FILE', '-w', format]);
  }
  for (const revision of [100, 250, 300, 400, 99999])
    await sameTool(['hashkv', 'FILE', '--rev', String(revision), '-w', 'json']);
  await sameTool(['snapshot', 'status']);
  await sameTool(['hashkv']);
  await sameTool(['snapshot', 'status', '/nonexistent/file']);
  await sameTool(['hashkv', '/nonexistent/file']);
  await sameTool(['snapshot', 'status', 'FILE', '--nope']);
  const empty = join(scratch, 'empty');
  writeFileSync(empty, Buffer.alloc(4096));
  const ours = await runProgram(keelsonutl, ['snapshot', 'status', empty]);
  assert.equal(ours.code, 1);
  assert.match(ours.stderr, /^Error: .*is no database or damaged/);
});

test('help, and what does not exist: the same exit code, on the same stream, of the same command', async () => {
  const lines = [
    ...['', '--help', '-h', 'help', '-w json', '-- nonsense', 'help help', 'help nonsense', 'help -w json hashkv'],
    ...['nonsense', 'nonsense --help', '--nonsense', '-w', '-x', '--version', 'help --nonsense', 'has --help'],
    ...['snapshot', 'snapshot nonsense', 'snapshot nonsense status x', 'snapshot help', 'snapshot nonsense --help'],
    ...['snapshot --nonsense', 'help snapshot nonsense', 'help snapshot status', 'snapshot status -h --nonsense'],
    ...['snapshot status --help', 'hashkv --help', 'hashkv a b', 'version --help', 'version x'],
  ];
  /** Of which command it is the usage; else its first line. */
  const subject = (program: string, text: string): string => {
    const usage = /Usage:\n(.*)\n/.exec(text)?.[1];
    return (usage ?? text.split('\n')[0]!).replaceAll(program, 'PROGRAM');
  };
  for (const line of lines) {
    const words = line === '' ? [] : line.split(' ');
    const run = async (program: string, file: string): Promise<unknown> => {
      const { code, stdout, stderr } = await runProgram(file, words);
      const error = stderr.split('\n')[0]!.replaceAll(program, 'PROGRAM');
      return { code, stdout: subject(program, stdout.toString()), stderr: subject(program, stderr), error };
    };
    assert.deepEqual(await run('keelsonutl', keelsonutl), await run('etcdutl', peerBinary('etcdutl')), line);
  }
});

async function startKeelson(dataDir: string): Promise<Member> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const child = spawn(
    fileURLToPath(new URL('../../bin/keelson', import.meta.url)),
    [
      `--data-dir=${dataDir}`,
      `--listen-client-urls=${url}`,
      '--advertise-client-urls=http://127.0.0.1:23791',
      `--listen-peer-urls=http://127.0.0.1:${await freePort()}`,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  processes.push(child);
  let log = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString();
      if (log.includes('ready to serve client requests')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`keelson ended with ${code}: ${log}`)));
  });
  return { endpoint: url.slice('http://'.length), process: child };
}

async function stop(member: Member): Promise<void> {
  const ended = new Promise((resolve) => member.process.once('exit', resolve));
  member.process.kill('SIGKILL');
  await ended;
}

/** Everything that clients can see of a member's state, as text to compare. */
async function stateOf(endpoint: string, revisions: readonly number[]): Promise<string[]> {
  const client = new EtcdClient({ endpoints: [endpoint] });
  const all = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };
  const lines: string[] = [];
  const note = async (name: string, call: () => Promise<unknown>): Promise<void> => {
    const text = await call().then(
      (value) => JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? String(each) : each)),
      (error: Error) => error.message,
    );
    lines.push(`${name}: ${text}`);
  };
  for (const revision of [0, ...revisions]) {
    await note(`range at ${revision}`, async () => {
      const { kvs, count } = await client.call(rpc.range, { ...all, revision });
      return [
        count,
        kvs.map((kv) => [kv.key.toString(), kv.value.length, kv.createRevision, kv.modRevision, kv.version, kv.lease]),
      ];
    });
    await note(`hash at ${revision}`, async () => {
      const { hash, compactRevision, hashRevision, header } = await client.call(rpc.hashKv, { revision });
      return [hash, compactRevision, hashRevision, header?.revision];
    });
  }
  const { leases } = await client.call(rpc.leaseLeases, {});
  for (const { id } of leases.sort((a, b) => (a.id < b.id ? -1 : 1))) {
    await note(`lease ${id}`, async () => {
      const { grantedTtl, keys } = await client.call(rpc.leaseTimeToLive, { id, keys: true });
      return [grantedTtl, keys.map(String).sort()];
    });
  }
  await note('members', async () => {
    const { members } = await client.call(rpc.memberList, {});
    return members.map((member) => [member.id, member.name, member.peerUrls]);
  });
  client.close();
  return lines;
}

async function eachEndpoint(
  endpoints: readonly string[],
  run: (client: EtcdClient) => Promise<unknown>,
): Promise<void> {
  for (const endpoint of endpoints) {
    const client = new EtcdClient({ endpoints: [endpoint] });
    await run(client);
    client.close();
  }
}

async function restoreBoth(name: string, flags: readonly string[]): Promise<readonly [Member, Member]> {
  const directories = [join(scratch, `${name}-etcd`), join(scratch, `${name}-keelson`)] as const;
  const common = [
    snapshot,
    '--initial-cluster',
    'default=http://127.0.0.1:23801',
    '--initial-advertise-peer-urls',
    'http://127.0.0.1:23801',
  ];
  const words = ['snapshot', 'restore', ...common, ...flags, '--data-dir'];
  const results = await Promise.all([
    runProgram(peerBinary('etcdutl'), [...words, directories[0]]),
    runProgram(keelsonutl, [...words, directories[1]]),
  ]);
  for (const result of results) assert.equal(result.code, 0, result.stderr);
  assert.equal(results[1].stdout.length, 0);
  const etcd = await startEtcd(directories[0]);
  processes.push(etcd.process);
  return [etcd, await startKeelson(directories[1])];
}

/** Compactions from the restored history on to the newest revision, with writes between. */
async function liveOn(members: readonly [Member, Member], newest: number): Promise<void> {
  const endpoints = members.map((member) => member.endpoint);
  for (const compacted of [newest - 60, newest - 1, newest]) {
    // The random history may have been compacted beyond the first of them already: then both refuse.
    const outcomes: string[] = [];
    await eachEndpoint(endpoints, async (client) => {
      const answer = client.call(rpc.compact, { revision: compacted, physical: true });
      outcomes.push(
        await answer.then(
          () => 'compacted',
          (error: Error) => error.message,
        ),
      );
    });
    assert.equal(outcomes[1], outcomes[0]);
    const revisions = [compacted - 1, compacted, compacted + 1, newest];
    assert.deepEqual(
      await stateOf(endpoints[1]!, revisions),
      await stateOf(endpoints[0]!, revisions),
      `compacted ${compacted}`,
    );
  }
  const put = { key: Buffer.from('after'), value: Buffer.from('1') };
  await eachEndpoint(endpoints, (client) => client.call(rpc.put, put));
  await eachEndpoint(endpoints, (client) =>
    client.call(rpc.deleteRange, { key: Buffer.from('key-'), rangeEnd: Buffer.from('key-2') }),
  );
  await eachEndpoint(endpoints, (client) => client.call(rpc.compact, { revision: newest + 2, physical: true }));
  assert.deepEqual(await stateOf(endpoints[1]!, []), await stateOf(endpoints[0]!, []));
}

async function revisionOf(endpoint: string): Promise<number> {
  const client = new EtcdClient({ endpoints: [endpoint] });
  const { header } = await client.call(rpc.range, { key: Buffer.from('x') });
  client.close();
  return header!.revision;
}

test('restore', async () => {
  const [etcd, first] = await restoreBoth('plain', []);
  const newest = await revisionOf(etcd.endpoint);
  const revisions = [newest - 100, newest - 50, newest - 10, newest];
  const expected = await stateOf(etcd.endpoint, revisions);
  assert.deepEqual(await stateOf(first.endpoint, revisions), expected);
  await stop(first);
  const keelson = await startKeelson(join(scratch, 'plain-keelson'));
  assert.deepEqual(await stateOf(keelson.endpoint, revisions), expected, 'after kill -9');
  await liveOn([etcd, keelson], newest);
  await backToEtcd(keelson);
});

async function backToEtcd(keelson: Member): Promise<void> {
  const file = join(scratch, 'back.db');
  const saved = await runProgram(keelsonctl, ['--endpoints', keelson.endpoint, 'snapshot', 'save', file]);
  assert.equal(saved.code, 0, saved.stderr);
  await sameTool(['snapshot', 'status', 'FILE', '-w', 'json'], file);
  await sameTool(['hashkv', 'FILE', '-w', 'json'], file);
  const directory = join(scratch, 'back-etcd');
  const cluster = [
    '--initial-cluster',
    'default=http://127.0.0.1:23801',
    '--initial-advertise-peer-urls',
    'http://127.0.0.1:23801',
  ];
  const restored = await runProgram(peerBinary('etcdutl'), [
    'snapshot',
    'restore',
    file,
    '--data-dir',
    directory,
    ...cluster,
  ]);
  assert.equal(restored.code, 0, restored.stderr);
  const etcd = await startEtcd(directory);
  processes.push(etcd.process);
  assert.deepEqual(await stateOf(etcd.endpoint, []), await stateOf(keelson.endpoint, []));
}

test('restore with a bumped revision', async () => {
  const [etcd, first] = await restoreBoth('bumped', ['--bump-revision', '1000', '--mark-compacted']);
  const newest = await revisionOf(etcd.endpoint);
  assert.ok(newest > 1000);
  const settled = async (endpoint: string): Promise<string[]> => {
    // The compaction that was marked runs after the start. Its own hash is left out: etcd remembers none for a compaction
    // that it resumes, keelson does.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return stateOf(endpoint, [newest - 1]);
  };
  const expected = await settled(etcd.endpoint);
  assert.deepEqual(await settled(first.endpoint), expected);
  await stop(first);
  const keelson = await startKeelson(join(scratch, 'bumped-keelson'));
  assert.deepEqual(await settled(keelson.endpoint), expected, 'after kill -9');
  const endpoints = [etcd.endpoint, keelson.endpoint];
  await eachEndpoint(endpoints, (client) =>
    client.call(rpc.put, { key: Buffer.from('after'), value: Buffer.from('1') }),
  );
  await eachEndpoint(endpoints, (client) =>
    client.call(rpc.put, { key: Buffer.from('key-1'), value: Buffer.from('2') }),
  );
  await eachEndpoint(endpoints, (client) => client.call(rpc.compact, { revision: newest + 2, physical: true }));
  assert.deepEqual(await stateOf(keelson.endpoint, [newest + 2]), await stateOf(etcd.endpoint, [newest + 2]));
});

test('an empty keyspace', async () => {
  const etcd = await startEtcd(join(scratch, 'empty-source'));
  processes.push(etcd.process);
  const file = join(scratch, 'empty.db');
  await runProgram(keelsonctl, ['--endpoints', etcd.endpoint, 'snapshot', 'save', file]);
  for (const [name, flags] of [
    ['empty-plain', []],
    ['empty-bumped', ['--bump-revision', '7', '--mark-compacted']],
  ] as const) {
    const directory = join(scratch, name);
    const restored = await runProgram(keelsonutl, ['snapshot', 'restore', file, '--data-dir', directory, ...flags]);
    assert.equal(restored.code, 0, restored.stderr);
    const keelson = await startKeelson(directory);
    const client = new EtcdClient({ endpoints: [keelson.endpoint] });
    const { header } = await client.call(rpc.put, { key: Buffer.from('a'), value: Buffer.from('b') });
    assert.equal(header?.revision, name === 'empty-plain' ? 2 : 8);
    client.close();
    await stop(keelson);
  }
});

test('what is not restored', async () => {
  const occupied = join(scratch, 'occupied');
  mkdirSync(occupied);
  writeFileSync(join(occupied, 'file'), '');
  const fresh = ['--data-dir', 'DIR'];
  await sameTool(['snapshot', 'restore', 'FILE', '--data-dir', occupied]);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh, '--wal-dir', occupied]);
  await sameTool(['snapshot', 'restore', '/nonexistent', ...fresh]);
  await sameTool(['snapshot', 'restore', ...fresh]);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh, '--bump-revision', '5']);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh, '--mark-compacted']);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh, '--name', 'other']);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh, '--initial-cluster', 'default=nonsense']);
  const cut = join(scratch, 'cut.db');
  copyFileSync(snapshot, cut);
  truncateSync(cut, readFileSync(snapshot).length - 32);
  await sameTool(['snapshot', 'restore', 'FILE', ...fresh], cut);
  const directory = join(scratch, 'unchecked');
  const unchecked = await runProgram(keelsonutl, [
    'snapshot',
    'restore',
    cut,
    '--data-dir',
    directory,
    '--skip-hash-check',
  ]);
  assert.equal(unchecked.code, 0, unchecked.stderr);
  const again = await runProgram(keelsonutl, [
    'snapshot',
    'restore',
    cut,
    '--data-dir',
    directory,
    '--skip-hash-check',
  ]);
  assert.deepEqual([again.code, again.stderr], [1, `Error: data-dir "${directory}" not empty or could not be read\n`]);
  const damaged = join(scratch, 'damaged.db');
  const bytes = readFileSync(snapshot);
  bytes[5000]! ^= 1;
  writeFileSync(damaged, bytes);
  const refused = await runProgram(keelsonutl, ['snapshot', 'restore', damaged, '--data-dir', join(scratch, 'never')]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /snapshot hash does not match/);
});

test('dump-log prints the log that the restore began, and refuses a damaged one', async () => {
  const directory = join(scratch, 'unchecked');
  const dumped = await runProgram(keelsonutl, ['dump-log', directory]);
  assert.equal(dumped.code, 0, dumped.stderr);
  const lines = dumped.stdout
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map((line) => line['type'] ?? Object.keys(line)[0]),
    ['segment', 'confChange', 'hardState', 'end'],
  );
  assert.match(Buffer.from(String(lines[1]!['data']), 'base64').toString('latin1'), /"name":"default"/);
  const inside = await runProgram(keelsonutl, ['dump-log', join(directory, 'member/wal')]);
  assert.deepEqual(inside.stdout, dumped.stdout);
  const nothing = await runProgram(keelsonutl, ['dump-log', scratch]);
  assert.deepEqual([nothing.code, nothing.stderr], [14, `Error: wal: ${scratch} holds no log\n`]);
  appendFileSync(join(directory, 'member/wal/0000000000000002-0000000000000002.wal'), Buffer.alloc(600, 1));
  assert.equal((await runProgram(keelsonutl, ['dump-log', directory])).code, 10);
});
