// Goal: whatever a client sends gets its clear error (etcd's code and text), and neither stops the server, nor harms other
// clients, nor makes it grow. Method: one real server for all of it; every test leaves it serving; the last ones look at its
// memory, its log and its end. What the engine does with bad frames is tested in src/http2 and by h2spec.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom } from '../src/io/random.ts';
import {
  AlarmRequest,
  CompactionRequest,
  DowngradeRequest,
  HashKVRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  LeaseTimeToLiveRequest,
  MemberAddRequest,
  MemberIdRequest,
  MemberListRequest,
  MemberUpdateRequest,
  MoveLeaderRequest,
} from '../src/proto/etcdserverpb.ts';
import { encode } from '../src/proto/message.ts';
import { DeleteMessage, encodeTxn, PutMessage, RangeMessage } from '../src/testing/kv-messages.ts';
import { EtcdClient, everything, expectOk, type Result, type WatchAnswer } from './support/etcd-client.ts';
import { frameMessage, openSocket, rawCall } from './support/raw-http2.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const MEBI = 1024 * 1024;
/** --max-request-bytes and what gRPC lets through, by default. */
const requestBytesMax = 1.5 * MEBI;
const messageBytesMax = 2 * MEBI;
const key = Buffer.from('k');
const mutationRounds = Number(process.env['KEELSON_MUTATIONS'] ?? 60);
const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);

let directory: string;
let server: ServerProcess;
let address: string;
let client: EtcdClient;

before(async () => {
  directory = temporaryDirectory('bad-input');
  server = ServerProcess.start({ dataDir: directory });
  address = await server.whenReady();
  client = new EtcdClient(address);
  for (let i = 0; i < 10; i++) expectOk(await client.put({ key: Buffer.from(`seed/${i}`), value: Buffer.from('v') }));
});
after(async () => {
  client.close();
  // The tests end it themselves, orderly: an earlier end is what the first failure is about.
  if (server.exit !== null && server.exit.code !== 0)
    console.error(JSON.stringify(server.exit), server.output.slice(-3000));
  await server.stop('SIGKILL');
  removeDirectory(directory);
});

function assertFails(result: Result<unknown>, code: number, message: string | RegExp): void {
  assert.ok(!result.ok, 'it must fail');
  assert.equal(result.code, code, result.message);
  if (typeof message === 'string') assert.equal(result.message, message);
  else assert.match(result.message, message);
}

async function assertServes(): Promise<void> {
  const before = expectOk(await client.range({ key: Buffer.from('seed/0') }));
  assert.equal(before.count, 1);
  const { header } = expectOk(await client.put({ key: Buffer.from('alive'), value: Buffer.alloc(8) }));
  assert.equal(header?.revision, before.header!.revision + 1);
}

const methods = [
  'KV/Range KV/RangeStream KV/Put KV/DeleteRange KV/Txn KV/Compact',
  'Lease/LeaseGrant Lease/LeaseRevoke Lease/LeaseKeepAlive Lease/LeaseTimeToLive Watch/Watch',
  'Lease/LeaseLeases Maintenance/Alarm Maintenance/HashKV Maintenance/MoveLeader Maintenance/Downgrade',
  'Maintenance/Status Maintenance/Hash Maintenance/Defragment Maintenance/Snapshot Cluster/MemberList',
]
  .join(' ')
  .split(' ')
  .map((name) => `/etcdserverpb.${name}`);

test('malformed protobuf: code 13 from every method', async () => {
  // A field of length 100 that is not there; a varint without end; wire type 7; field number 0.
  const malformed = ['0a64', '08ffffffffffffffffffffff', '0f', '0200', '0a02ff'].map((hex) => Buffer.from(hex, 'hex'));
  for (const path of methods) {
    for (const bytes of malformed) {
      const { grpcStatus, grpcMessage } = await rawCall(address, path, frameMessage(bytes));
      assert.equal(grpcStatus, 13, `${path} ${bytes.toString('hex')}: ${grpcStatus} ${grpcMessage}`);
      assert.match(
        grpcMessage,
        /^grpc: (error unmarshalling request|failed to unmarshal the received message): proto: /,
      );
    }
  }
  await assertServes();
});

/** Requests of every method that writes, good ones, to be mutated. */
function goodRequests(): [string, Buffer][] {
  const put = { key, value: Buffer.from('v'), lease: 777n, prevKv: true };
  const range = { key, rangeEnd: Buffer.from('z'), limit: 3, sortOrder: 1, sortTarget: 2, minModRevision: 2 };
  const compare = [{ key, target: 2, result: 0, modRevision: 3, rangeEnd: Buffer.from('l') }];
  const nested = { success: [{ put: { key: Buffer.from('n'), value: key } }], failure: [{ range }] };
  const txn = encodeTxn({ compare, success: [{ put }, { txn: nested }], failure: [{ delete: { key } }, { range }] });
  return [
    ['KV/Put', encode(PutMessage, put)],
    ['KV/DeleteRange', encode(DeleteMessage, { key, rangeEnd: Buffer.from('l'), prevKv: true })],
    ['KV/Txn', txn],
    ['KV/Range', encode(RangeMessage, range)],
    ['KV/Compact', encode(CompactionRequest, { revision: 3, physical: true })],
    ['Lease/LeaseGrant', encode(LeaseGrantRequest, { ttl: 100n, id: 777n })],
    ['Lease/LeaseRevoke', encode(LeaseRevokeRequest, { id: 777n })],
    ['Lease/LeaseTimeToLive', encode(LeaseTimeToLiveRequest, { id: 777n, keys: true })],
    ['Maintenance/Alarm', encode(AlarmRequest, { action: 1, memberId: 5n, alarm: 1 })],
    ['Maintenance/HashKV', encode(HashKVRequest, { revision: 3 })],
    ['Maintenance/Downgrade', encode(DowngradeRequest, { action: 1, version: '3.6.0' })],
    ['Maintenance/MoveLeader', encode(MoveLeaderRequest, { targetId: 5n })],
    ['Cluster/MemberList', encode(MemberListRequest, { linearizable: true })],
  ];
}

/** A few bytes changed, doubled, removed or cut off. */
function mutate(good: Buffer, random: SeededRandom): Buffer {
  const bytes = [...good];
  for (let i = random.below(4); i > 0; i--) {
    const at = random.below(bytes.length + 1);
    const kind = random.below(5);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) bytes.splice(at, 0, random.below(256));
    else if (kind === 2) bytes.splice(at, 1);
    else if (kind === 3) bytes.push(...bytes.slice(at));
    else bytes.length = Math.min(bytes.length, at);
  }
  return Buffer.from(bytes);
}

test(`mutated requests are answered or refused, and never end the server (KEELSON_SEED=${seed})`, async () => {
  // A server of its own: what the mutations do (alarms, compactions) would be in the way of the other tests.
  const victim = ServerProcess.start({ dataDir: `${directory}/victim` });
  const sender = new EtcdClient(await victim.whenReady());
  const random = new SeededRandom(seed);
  const sent: string[] = [];
  try {
    for (let round = 0; round < mutationRounds; round++) {
      // An alarm refuses most of the rest: only near the end.
      const hasAlarms = round > mutationRounds * 0.8;
      const requests = goodRequests().filter(([name]) => hasAlarms || !name.endsWith('/Alarm'));
      const calls = requests.map(([name, good]) => {
        const bytes = mutate(good, random);
        sent.push(`${name} ${bytes.toString('hex')}`);
        return sender.call(`/etcdserverpb.${name}`, bytes);
      });
      for (const result of await Promise.all(calls)) {
        if (result.ok) continue;
        const where =
          victim.exit === null ? '' : `\n${sent.slice(-calls.length).join('\n')}\n${victim.output.slice(-1500)}`;
        assert.notEqual(result.code, 14, result.message + where);
      }
    }
    // What is in the log must also be applied again: by a start after a kill.
    await victim.stop('SIGKILL');
    const again = ServerProcess.start({ dataDir: `${directory}/victim` });
    await again.whenReady();
    assert.equal((await again.stop('SIGTERM')).code, 0);
  } finally {
    sender.close();
    victim.child.kill('SIGKILL');
  }
});

test(`mutated changes of the membership are answered, and never end the server (KEELSON_SEED=${seed})`, async () => {
  // One that is taken may cost the quorum, with a voter that is not there: then calls time out, and that is right.
  const victim = ServerProcess.start({ dataDir: `${directory}/members` });
  const sender = new EtcdClient(await victim.whenReady());
  const random = new SeededRandom(seed);
  const good: [string, Buffer][] = [
    ['Cluster/MemberAdd', encode(MemberAddRequest, { peerUrls: ['http://127.0.0.1:1'], isLearner: true })],
    ['Cluster/MemberAdd', encode(MemberAddRequest, { peerUrls: ['http://127.0.0.1:1', 'http://127.0.0.1:2'] })],
    ['Cluster/MemberUpdate', encode(MemberUpdateRequest, { id: 5n, peerUrls: ['http://127.0.0.1:1'] })],
    ['Cluster/MemberPromote', encode(MemberIdRequest, { id: 5n })],
    ['Cluster/MemberRemove', encode(MemberIdRequest, { id: 5n })],
  ];
  try {
    for (let round = 0; round < 60; round++) {
      const calls = good.map(([name, bytes]) =>
        sender.call(`/etcdserverpb.${name}`, mutate(bytes, random), { deadlineMs: 100 }),
      );
      await Promise.all(calls);
      assert.equal(victim.exit, null, victim.output.slice(-1500));
    }
    const status = await sender.call('/etcdserverpb.Maintenance/Status', Buffer.alloc(0));
    assert.ok(status.ok);
  } finally {
    sender.close();
    victim.child.kill('SIGKILL');
  }
});

test('unknown methods and services: code 12', async () => {
  const empty = Buffer.alloc(0);
  const cases = [
    ['/etcdserverpb.KV/Nothing', 'unknown method Nothing for service etcdserverpb.KV'],
    ['/no.Service/Range', 'unknown service no.Service'],
    ['/etcdserverpb.KV/range', 'unknown method range for service etcdserverpb.KV'],
    ['/nothing', 'malformed method name: "/nothing"'],
  ] as const;
  for (const [path, message] of cases) assertFails(await client.call(path, empty), 12, message);
});

test('keys, limits, revisions and sort options', async () => {
  const empty = Buffer.alloc(0);
  const emptyKey = 'etcdserver: key is not provided';
  assertFails(await client.range({ key: empty }), 3, emptyKey);
  assertFails(await client.put({ key: empty, value: key }), 3, emptyKey);
  assertFails(await client.deleteRange({ key: empty }), 3, emptyKey);
  assertFails(await client.txn({ compare: [{ key: empty }] }), 3, emptyKey);
  assertFails(await client.txn({ success: [{ put: { key: empty } }] }), 3, emptyKey);
  const seeds = { key: Buffer.from('seed/'), rangeEnd: Buffer.from('seed0') };
  assert.equal(expectOk(await client.range({ ...seeds, limit: -5 })).kvs.length, 10, 'a negative limit is none');
  assert.equal(expectOk(await client.range({ ...seeds, revision: -5 })).kvs.length, 10, 'a negative revision is now');
  const revision = expectOk(await client.range(seeds)).header!.revision;
  const future = 'etcdserver: mvcc: required revision is a future revision';
  assertFails(await client.range({ ...seeds, revision: revision + 1000 }), 11, future);
  assertFails(await client.compact(revision + 1000), 11, future);
  assertFails(await client.hashKv(revision + 1000), 11, future);
  assertFails(await client.txn({ success: [{ range: { ...seeds, revision: revision + 1000 } }] }), 11, future);
  expectOk(await client.compact(revision - 1, true));
  const compacted = 'etcdserver: mvcc: required revision has been compacted';
  assertFails(await client.range({ ...seeds, revision: revision - 2 }), 11, compacted);
  assertFails(await client.compact(revision - 1), 11, compacted);
  assertFails(await client.hashKv(revision - 2), 11, compacted);
  const invalidSort = 'etcdserver: invalid sort option';
  assertFails(await client.range({ ...seeds, sortOrder: 7 }), 3, invalidSort);
  assertFails(await client.range({ ...seeds, sortTarget: 9 }), 3, invalidSort);
  await assertServes();
});

test('transactions: too many operations, a key twice', async () => {
  const put = (i: number): object => ({ put: { key: Buffer.from(`t/${i}`), value: key } });
  const many = Array.from({ length: 129 }, (_, i) => put(i));
  assertFails(await client.txn({ success: many }), 3, 'etcdserver: too many operations in txn request');
  expectOk(await client.txn({ success: many.slice(1) }));
  const duplicate = 'etcdserver: duplicate key given in txn request';
  assertFails(await client.txn({ success: [put(1), put(1)] }), 3, duplicate);
  assertFails(await client.txn({ success: [put(1), { delete: { key: Buffer.from('t/1') } }] }), 3, duplicate);
  await assertServes();
});

test('leases that do not exist, exist already, or would last too long', async () => {
  const notFound = 'etcdserver: requested lease not found';
  assertFails(await client.put({ key, value: key, lease: 12345n }), 5, notFound);
  assertFails(await client.revoke(12345n), 5, notFound);
  const unknown = expectOk(await client.timeToLive(12345n));
  assert.deepEqual([unknown.ttl, unknown.grantedTtl, unknown.keys], [-1n, 0n, []]);
  expectOk(await client.grant(777n, 1000));
  assertFails(await client.grant(777n, 1000), 9, 'etcdserver: lease already exists');
  assertFails(await client.grant(778n, 9_000_000_001), 11, 'etcdserver: too large lease TTL');
  assert.equal(expectOk(await client.grant(779n, -5)).ttl, 2n, 'a negative TTL becomes the smallest');
  assertFails(
    await client.put({ key, value: key, lease: 777n, ignoreLease: true }),
    3,
    'etcdserver: lease is provided',
  );
  assertFails(await client.put({ key, value: key, ignoreValue: true }), 3, 'etcdserver: value is provided');
  const absent = Buffer.from('absent');
  assertFails(await client.put({ key: absent, ignoreValue: true }), 3, 'etcdserver: key not found');
  await assertServes();
});

test('requests that are too large: code 3 from etcd, code 8 from gRPC', async () => {
  const put = (bytes: number): Promise<Result<unknown>> => client.put({ key, value: Buffer.alloc(bytes) });
  expectOk(await put(requestBytesMax - 1000));
  assertFails(await put(requestBytesMax + 1), 3, 'etcdserver: request is too large');
  const large = /^grpc: received message larger than max \(\d+ vs\. 2097152\)$/;
  assertFails(await put(messageBytesMax + 1), 8, large);
  // A message may claim any length; it is refused by its head, not collected.
  for (const length of [0x7fffffff, 0xffffffff]) {
    const head = Buffer.from([0, 0, 0, 0, 0]);
    head.writeUInt32BE(length, 1);
    const answer = await rawCall(address, '/etcdserverpb.KV/Put', Buffer.concat([head, Buffer.alloc(100_000)]));
    assert.equal(answer.grpcStatus, 8);
    assert.equal(answer.grpcMessage, `grpc: received message larger than max (${length} vs. 2097152)`);
  }
  const small = new EtcdClient(address);
  expectOk(await small.put({ key, value: Buffer.alloc(1) }));
  small.close();
  await assertServes();
});

test('metadata and framing that gRPC forbids', async () => {
  const range = frameMessage(Buffer.from('0a016b', 'hex'));
  const path = '/etcdserverpb.KV/Range';
  const cases: readonly [string, Record<string, string>, Buffer, number, RegExp][] = [
    ['a timeout without unit', { 'grpc-timeout': '17' }, range, 13, /malformed grpc-timeout/],
    ['a timeout too long', { 'grpc-timeout': '123456789S' }, range, 13, /malformed grpc-timeout/],
    ['another content type', { 'content-type': 'application/grpcx' }, range, 3, /invalid gRPC request content-type/],
    ['an unknown encoding', { 'grpc-encoding': 'zstd' }, range, 12, /Decompressor is not installed/],
    ['bad base64', { 'x-bin': '!!!' }, range, 13, /malformed binary metadata/],
    ['another method', { ':method': 'PUT' }, range, 13, /which should be POST/],
    ['compressed without encoding', {}, frameMessage(Buffer.alloc(3), 1), 13, /compressed flag set/],
    ['an unknown flag', {}, frameMessage(Buffer.alloc(3), 9), 13, /unexpected payload format/],
    ['no gzip inside', { 'grpc-encoding': 'gzip' }, frameMessage(Buffer.alloc(3), 1), 13, /failed to decompress/],
    ['half a message', {}, range.subarray(0, 6), 2, /unexpected EOF/],
    ['no message', {}, Buffer.alloc(0), 2, /EOF/],
    ['two messages: the first is answered, as in grpc-go', {}, Buffer.concat([range, range]), 0, /^$/],
    ['no time left', { 'grpc-timeout': '0n' }, range, 4, /^context deadline exceeded$/],
  ];
  for (const [name, headers, body, code, message] of cases) {
    const answer = await rawCall(address, path, body, headers);
    // HTTP's own refusals come without a status, as the gateway's answer to what is no gRPC.
    if (name === 'another content type' && answer.grpcStatus === -1) assert.ok(answer.httpStatus >= 400, name);
    else
      assert.equal(answer.grpcStatus, code, `${name}: ${answer.httpStatus} ${answer.grpcStatus} ${answer.grpcMessage}`);
    if (answer.grpcStatus === code) assert.match(answer.grpcMessage, message, name);
  }
  // Many and large fields.
  const large = await rawCall(address, path, range, { 'x-large': 'x'.repeat(20_000) });
  assert.equal(large.grpcStatus, 0, 'a header of 20 kB is usual for tokens');
  const huge = await rawCall(address, path, range, { 'x-huge': 'x'.repeat(300_000) });
  assert.notEqual(huge.grpcStatus, 0, 'a header of 300 kB is not');
  await assertServes();
});

test('watches: bad ones are canceled with a reason, the stream and its others go on', async () => {
  const answers: WatchAnswer[] = [];
  const stream = client.watch((answer) => answers.push(answer));
  const next = async (count: number): Promise<WatchAnswer> => {
    for (let i = 0; i < 500 && answers.length < count; i++) await sleep(10);
    assert.ok(answers.length >= count, `answer ${count} did not come`);
    return answers[count - 1]!;
  };
  stream.send({ createRequest: { key } });
  assert.equal((await next(1)).created, true);
  stream.send({ createRequest: { key, startRevision: -1 } });
  const negative = await next(2);
  assert.deepEqual([negative.created, negative.canceled, negative.watchId], [true, true, -1n]);
  stream.send({ createRequest: { key: Buffer.from('b'), rangeEnd: Buffer.from('a') } });
  const inverted = await next(3);
  assert.deepEqual([inverted.canceled, inverted.watchId], [true, -1n]);
  assert.notEqual(inverted.cancelReason, '');
  stream.send({ createRequest: { ...everything, startRevision: 1 } });
  assert.equal((await next(4)).created, true);
  const compacted = await next(5);
  assert.ok(compacted.canceled && compacted.compactRevision > 0);
  stream.send({ cancelRequest: { watchId: 4711n } });
  stream.sendBytes(Buffer.alloc(0));
  const { header } = expectOk(await client.put({ key, value: Buffer.from('seen') }));
  const event = await next(6);
  assert.equal(event.events[0]?.kv?.modRevision, header?.revision);
  stream.sendBytes(Buffer.from('0a64', 'hex'));
  assert.equal((await stream.ended).code, 13);
  await assertServes();
});

test('deadlines and cancelled calls', async () => {
  const results = await Promise.all(
    Array.from({ length: 200 }, (_, i) => client.put({ key, value: Buffer.alloc(10) }, { deadlineMs: i % 3 })),
  );
  for (const result of results) if (!result.ok) assert.equal(result.code, 4, result.message);
  // A client that goes away with everything in flight.
  for (let round = 0; round < 10; round++) {
    const fleeting = new EtcdClient(address);
    const calls = Array.from({ length: 50 }, () => fleeting.range({ ...everything, limit: 100 }, { deadlineMs: 5 }));
    const stream = fleeting.watch(() => {});
    stream.send({ createRequest: { ...everything, prevKv: true } });
    await sleep(round);
    stream.cancel();
    fleeting.close();
    await Promise.all(calls);
  }
  await assertServes();
});

test('garbage on the port: the connection ends, the others do not notice', async () => {
  const random = new SeededRandom(seed);
  const openings = [
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    Buffer.from('POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{'),
    Buffer.from('GET / HTTP/9.9\r\n\r\n'),
    Buffer.from('160301020001000', 'hex'),
    Buffer.from('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'),
    Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.alloc(100, 0xff)]),
    Buffer.alloc(100_000, 0x41),
    Buffer.alloc(100_000),
  ];
  for (let i = 0; i < 60; i++) {
    const noise = Buffer.alloc(1 + random.below(5000));
    random.fill(noise);
    openings.push(noise);
    const frames = Buffer.alloc(200);
    random.fill(frames);
    openings.push(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.alloc(9), frames]));
  }
  for (const opening of openings) {
    const socket = await openSocket(address);
    socket.write(opening);
    await sleep(2);
    if (random.below(2) === 0) socket.end();
    else socket.destroy();
  }
  await assertServes();
});

test('connections that open slowly are served; those that never open hold nobody up', async () => {
  const silent = await Promise.all(Array.from({ length: 100 }, () => openSocket(address)));
  const slow = await openSocket(address);
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  const settings = Buffer.from('000000040000000000', 'hex');
  let received = 0;
  slow.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  for (const byte of Buffer.concat([preface, settings])) {
    slow.write(Buffer.from([byte]));
    await sleep(5);
  }
  await assertServes();
  for (let i = 0; i < 200 && received < 9; i++) await sleep(10);
  assert.ok(received >= 9, 'the slow one got its SETTINGS');
  slow.destroy();
  for (const socket of silent) socket.destroy();
});

test('bad flags: exit code 2 and a message as etcd words it', async () => {
  const cases: readonly [string[], RegExp, number][] = [
    [['--no-such-flag'], /flag provided but not defined: -no-such-flag/, 2],
    [['--quota-backend-bytes=16MB'], /invalid value "16MB" for flag -quota-backend-bytes/, 2],
    [['--max-txn-ops=-1'], /invalid value "-1" for flag -max-txn-ops/, 2],
    [['--snapshot-count'], /flag needs an argument: -snapshot-count/, 2],
    [['--listen-client-urls=nonsense'], /URL scheme must be http, https, unix, or unixs/, 2],
    [['--initial-cluster-state=odd'], /odd/, 2],
    [['--experimental-corrupt-check-time=1m'], /flag provided but not defined: -experimental-corrupt-check-time/, 2],
    // etcd finds these two after it has read the flags, logs them and exits with 1.
    [['stray'], /stray\\" is not a valid flag/, 1],
    [['--heartbeat-interval=1000', '--election-timeout=1000'], /should be at least as 5 times as/, 1],
  ];
  for (const [flags, message, code] of cases) {
    const run = ServerProcess.run([`--data-dir=${directory}/never`, ...flags]);
    const exit = await run.exited;
    assert.match(run.output, message, flags.join(' '));
    assert.equal(exit.code, code, flags.join(' '));
  }
});

test('after all of it: memory is sane, the log has no error, the end is orderly', async () => {
  // Twice the noise must not be twice the memory: measured before and after more of the same.
  const noise = async (): Promise<void> => {
    for (let round = 0; round < 8; round++) {
      const sockets = await Promise.all(Array.from({ length: 25 }, () => openSocket(address)));
      for (const socket of sockets) {
        socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
        socket.write(Buffer.from('000000040000000000', 'hex'));
        // Headers that are never finished, and a frame that never comes.
        socket.write(Buffer.from('000005010000000001828684', 'hex'));
      }
      await sleep(5);
      for (const socket of sockets) socket.destroy();
      await Promise.all(
        Array.from({ length: 25 }, () => client.put({ key, value: Buffer.alloc(messageBytesMax + 1) })),
      );
    }
  };
  await noise();
  await sleep(300);
  const first = server.rssAnonBytes();
  await noise();
  await sleep(300);
  const second = server.rssAnonBytes();
  assert.ok(second - first < 64 * MEBI, `anonymous memory grew from ${first} to ${second}`);
  assert.ok(second < 400 * MEBI, `anonymous memory is ${second}`);
  const errors = server.logLines().filter(({ level }) => !['debug', 'info', 'warn'].includes(level));
  assert.deepEqual(errors, []);
  await assertServes();
  assert.deepEqual(await server.stop('SIGTERM'), { code: 0, signal: null });
  assert.equal(server.logLines().at(-1)?.msg, 'closed etcd server', 'none of it holds up the end');
  // Nothing that was let into the log keeps it from starting again.
  const again = ServerProcess.start({ dataDir: directory });
  const reader = new EtcdClient(await again.whenReady());
  expectOk(await reader.range({ key: Buffer.from('seed/0') }));
  reader.close();
  await again.stop('SIGKILL');
});
