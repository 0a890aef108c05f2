// Goal: after the same requests keelson's /metrics show what etcd's show, and its log says what etcd's says. Method: real etcd, then
// keelson, on the same ports (so that ids, and with them sizes, are the same), the same calls to both, then every series compared;
// what cannot be equal is listed here with its reason.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { AlarmRequest, MemberListRequest } from '../src/proto/etcdserverpb.ts';
import { encode } from '../src/proto/message.ts';
import { type ParsedFamily, parseExposition } from '../src/testing/exposition-parser.ts';
import { freePorts } from '../src/testing/free-port.ts';
import { loneMemberFlags, peerBinaries } from '../src/testing/peer-programs.ts';
import { seriesOf } from './metric-series.ts';
import { Program, scratchFolder, serverFile, sleep, until } from './program.ts';
import { EtcdClient } from './support/etcd-client.ts';

const begunMs: number = Date.now();

type Kind = 'etcd' | 'keelson';

interface Run {
  readonly families: Map<string, ParsedFamily>;
  /** By name and sorted labels; of a histogram the count alone. */
  readonly series: Map<string, number>;
  readonly lines: Record<string, unknown>[];
}

/** Series that cannot be equal, by how their names begin. */
const different: readonly (readonly [start: string, reason: string])[] = [
  ['go_', 'the Go runtime'],
  ['nodejs_', 'the Node runtime'],
  ['process_', 'the process'],
  ['os_fd_', 'descriptors of the process'],
  ['etcd_server_go_version', 'says what runs it'],
  ['etcd_disk_wal_', 'another WAL: no cut file of its own at the start, other framing, a batch is one write'],
  ['etcd_disk_backend_commit_duration', 'another backend: its own rhythm of commits'],
  ['etcd_debugging_disk_backend_commit_', 'the same; rebalance and spill are parts of bbolt'],
  ['etcd_mvcc_db_total_size', 'another file format'],
  ['etcd_debugging_mvcc_db_compaction_last', 'the time of day'],
  ['etcd_debugging_mvcc_db_compaction_pause', 'one for each batch that deletes: none where nothing is to be deleted'],
  ['grpc_server_handled_total{grpc_code="Canceled",grpc_method="LeaseKeepAlive"', "etcd's end races with the client's"],
  ['grpc_server_handled_total{grpc_code="OK",grpc_method="LeaseKeepAlive"', "etcd's end races with the client's"],
  ['grpc_server_msg_sent_total{grpc_method="Snapshot"', 'a snapshot of another size has another number of blobs'],
  ['etcd_network_client_grpc_sent_bytes_total', 'the same snapshot, and the status with the size of the database'],
  // rpc/watch.ts does not observe them yet.
  ['etcd_debugging_server_watch_send_loop_', 'not wired yet'],
];
/** etcd registers these two services behind the metrics' initialisation: their series begin with their first call. */
const lateServices = /grpc_service="(v3electionpb\.Election|v3lockpb\.Lock)"/;

const scratch = scratchFolder('metrics');

async function ctl(endpoint: string, ...args: string[]): Promise<void> {
  const file = join(peerBinaries, 'etcdctl');
  const program = new Program({ name: 'ctl', file, args: ['--endpoints', endpoint, ...args], folder: scratch.folder });
  await program.exited;
}

/** Everything once or a few times; what fails is meant to. */
async function traffic(endpoint: string): Promise<void> {
  const client = new EtcdClient(endpoint);
  const bytes = (text: string): Buffer => Buffer.from(text);
  const key = bytes('k0');
  const all = { key: bytes('k'), rangeEnd: bytes('l') };
  for (let i = 0; i < 5; i++) await client.put({ key: bytes(`k${i}`), value: bytes('v'.repeat(10 + i)) });
  await client.put({ key, value: bytes('again'), prevKv: true });
  await client.range({ key });
  await client.range(all);
  await client.range({ ...all, serializable: true, limit: 2 });
  await client.range({ key, revision: 99 });
  await client.range({ key: Buffer.alloc(0) });
  await client.put({ key: Buffer.alloc(0), value: key });
  await client.put({ key, value: key, lease: 404n });
  await client.put({ key, value: Buffer.alloc(1_600_000) });
  await client.put({ key, value: Buffer.alloc(2_200_000) });
  await client.deleteRange({ key: bytes('k4') });
  await client.deleteRange({ key: bytes('nothing') });
  const put = { key: bytes('t'), value: key };
  await client.txn({ success: [{ put }, { range: { key } }, { delete: { key: bytes('k3') } }] });
  await client.txn({ success: [{ range: { key } }] });
  await client.txn({ success: [{ put }, { put }] });
  const events: number[] = [];
  const watch = client.watch((answer) => events.push(answer.created ? -1 : answer.events.length));
  watch.send({ createRequest: { key: bytes('w'), rangeEnd: bytes('x') } });
  await until('the watcher', 5000, () => events.length === 1);
  for (let i = 0; i < 3; i++) {
    await client.put({ key: bytes('w'), value: key });
    await until('its event', 5000, () => events.length === i + 2);
  }
  watch.cancel();
  await watch.ended;
  // Leases: one that ends by itself, one that is renewed and revoked, one that was never there.
  await client.grant(0x1000n, 100);
  await client.grant(0x1000n, 100);
  await client.grant(0x1001n, 1);
  await client.put({ key: bytes('leased'), value: key, lease: 0x1000n });
  await ctl(endpoint, 'lease', 'keep-alive', '--once', '1000');
  await client.timeToLive(0x1000n);
  await client.leases();
  await client.revoke(0x1000n);
  await client.revoke(0x1234n);
  await client.compact(5);
  await client.compact(5);
  await client.compact(8, true);
  await client.compact(1_000_000);
  await client.range({ key, revision: 2 });
  await client.hashKv(0);
  await client.call('/etcdserverpb.Maintenance/Hash', Buffer.alloc(0));
  await client.call('/etcdserverpb.Maintenance/Alarm', encode(AlarmRequest, {}));
  await client.call('/etcdserverpb.Cluster/MemberList', encode(MemberListRequest, {}), {
    metadata: { 'client-api-version': '3.6' },
  });
  await client.call('/grpc.health.v1.Health/Check', Buffer.alloc(0));
  await client.call('/etcdserverpb.KV/NoSuchMethod', Buffer.alloc(0));
  await client.call('/etcdserverpb.Maintenance/MoveLeader', Buffer.alloc(0));
  await client.defragment();
  await client.collect('/etcdserverpb.Maintenance/Snapshot', Buffer.alloc(0));
  await client.status();
  for (const path of ['/health', '/health?serializable=true', '/livez', '/readyz', '/no-such-path']) {
    await fetch(`http://${endpoint}${path}`);
  }
  await fetch(`http://${endpoint}/health`, { method: 'POST' });
  // Until the short lease has ended: its ttl is raised to two seconds, and then it is looked for every half.
  await until('the end of the lease', 10_000, async () => {
    const text = await (await fetch(`http://${endpoint}/metrics`)).text();
    return /^etcd_debugging_server_lease_expired_total 1$/m.test(text);
  });
  client.close();
  await sleep(300);
}

async function runOne(kind: Kind, ports: readonly number[], flags: readonly string[]): Promise<Run> {
  const [client, peer] = ports.map((port) => `http://127.0.0.1:${port}`);
  const name = `${kind}${flags.length}`;
  const program = new Program({
    name,
    file: serverFile(kind),
    args: [...loneMemberFlags('m1', join(scratch.folder, `${name}-data`), client!, peer!), ...flags],
    folder: scratch.folder,
  });
  try {
    await program.says();
    // The first member publishes the cluster's version a moment later.
    await program.says('cluster version is updated', 10_000);
    const endpoint = `127.0.0.1:${ports[0]}`;
    await traffic(endpoint);
    const text = await (await fetch(`http://${endpoint}/metrics`)).text();
    await program.stop();
    const families = parseExposition(text);
    const lines = program
      .log()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    return { families, series: seriesOf(families), lines };
  } finally {
    await program.stop('SIGKILL');
  }
}

const slowFlags = ['--warning-apply-duration=1ns', '--warning-unary-request-duration=1ns'];
let slow: Record<Kind, Run>;
let debug: Record<Kind, Run>;
let usual: Record<Kind, Run>;

before(async () => {
  const ports = await freePorts(2);
  usual = { etcd: await runOne('etcd', ports, []), keelson: await runOne('keelson', ports, []) };
  slow = { etcd: await runOne('etcd', ports, slowFlags), keelson: await runOne('keelson', ports, slowFlags) };
  const level = ['--log-level=debug'];
  debug = { etcd: await runOne('etcd', ports, level), keelson: await runOne('keelson', ports, level) };
});
after(() => scratch.remove());

const isDifferent = (name: string): boolean => different.some(([start]) => name.startsWith(start));
/** Of a metric whose value counts scrapes of a loop that waits. */
const isScrape = (name: string): boolean => name.startsWith('promhttp_');

describe('metrics', () => {
  it('every series has the value that etcd shows', () => {
    const wrong: string[] = [];
    const { etcd, keelson } = usual;
    for (const name of new Set([...etcd.series.keys(), ...keelson.series.keys()])) {
      if (isDifferent(name) || isScrape(name)) continue;
      const theirs = etcd.series.get(name);
      const ours = keelson.series.get(name);
      if (theirs === ours || (lateServices.test(name) && theirs === undefined && ours === 0)) continue;
      wrong.push(`${name}: etcd ${theirs}, keelson ${ours}`);
    }
    assert.deepEqual(wrong.sort(), []);
  });

  it('the families that may differ in value are there, with the same type', () => {
    for (const [name, { type }] of usual.etcd.families) {
      if (name.startsWith('go_')) continue;
      assert.equal(usual.keelson.families.get(name)?.type, type, name);
    }
  });

  it('what differs is not empty in keelson where it means something there', () => {
    const { series } = usual.keelson;
    for (const name of [
      'etcd_disk_wal_fsync_duration_seconds_count',
      'etcd_disk_wal_write_duration_seconds_count',
      'etcd_disk_wal_write_bytes_total',
      'etcd_disk_backend_commit_duration_seconds_count',
      'etcd_debugging_disk_backend_commit_write_duration_seconds_count',
      'etcd_mvcc_db_total_size_in_bytes',
      'etcd_mvcc_db_total_size_in_use_in_bytes',
      'etcd_debugging_mvcc_db_compaction_last',
      'etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count',
      'etcd_network_client_grpc_sent_bytes_total',
      'os_fd_used',
      'process_resident_memory_bytes',
      'promhttp_metric_handler_requests_total{code="200"}',
    ]) {
      assert.ok((series.get(name) ?? 0) > 0, name);
    }
  });

  it('applies over the warning duration are counted as etcd counts them', () => {
    const name = 'etcd_server_slow_apply_total';
    assert.ok(slow.etcd.series.get(name)! > 30);
    assert.equal(slow.keelson.series.get(name), slow.etcd.series.get(name));
    assert.equal(usual.keelson.series.get(name), 0);
  });
});

/** Messages that scripts and people wait for, and the keys that keelson does not have, with the reason. */
const messages: readonly (readonly [message: string, missing: readonly string[]])[] = [
  ['opened backend db', []],
  ['kvstore restored', []],
  ['starting local member', []],
  ['added member', []],
  ['setting up initial cluster version using v3 API', []],
  ['set initial cluster version', []],
  ['enabled capabilities for version', []],
  ['cluster version is updated', []],
  // Its time-out: keelson tries again for ever.
  ['published local member to cluster through raft', ['publish-timeout']],
  ['ready to serve client requests', []],
  ['serving client traffic insecurely; this is strongly discouraged!', []],
  ['finished scheduled compaction', []],
  ['storing new hash', []],
  ['starting defragment', []],
  ['defragmenting', []],
  ['finished defragmenting directory', []],
  ['finished defragment', []],
  ['sending database snapshot to client', []],
  ['sending database sha256 checksum to client', []],
  ['successfully sent database snapshot to client', []],
  ['failed to apply request', []],
  ['/health error', []],
  ['received signal; shutting down', []],
  ['closing etcd server', []],
  ['closed etcd server', []],
];

function compareMessage(message: string, missing: readonly string[], { etcd, keelson }: Record<Kind, Run>): void {
  const theirs = etcd.lines.filter(({ msg }) => msg === message);
  const ours = keelson.lines.filter(({ msg }) => msg === message);
  assert.ok(theirs.length > 0, `etcd never says "${message}"`);
  assert.ok(ours.length > 0, `keelson never says "${message}"`);
  assert.equal(ours[0]!['level'], theirs[0]!['level'], message);
  const keys = Object.keys(theirs[0]!).filter((key) => key !== 'logger' && !missing.includes(key));
  const absent = keys.filter((key) => !(key in ours[0]!));
  assert.deepEqual(absent, [], `keys of "${message}"`);
}

describe('log', () => {
  for (const [message, missing] of messages) {
    it(message, () => compareMessage(message, missing, usual));
  }

  it('the election, word for word', () => {
    const elected = ({ lines }: Run): unknown =>
      lines.map(({ msg }) => String(msg)).filter((text) => text.startsWith('raft.node: '));
    assert.deepEqual(elected(usual.keelson), elected(usual.etcd));
  });

  it('nothing but what was wrong with requests is above info', () => {
    const expected = new Set([
      'Running http and grpc server on single port. This is not recommended for production.',
      'failed to apply request',
      '/health error',
      // How fast this machine is just now.
      'request stats',
      'apply request took too long',
    ]);
    const others = usual.keelson.lines.filter(
      ({ level, msg }) => level !== 'info' && level !== 'debug' && !expected.has(String(msg)),
    );
    assert.deepEqual(others, []);
  });

  const linesOf = ({ lines }: Run, ...messages: string[]): string[] =>
    lines
      .filter(({ msg }) => messages.includes(String(msg)))
      .map(withoutChance)
      .sort();

  it('applies and reads that took too long: the same lines with the same fields', () => {
    const told = ['apply request took too long', 'failed to apply request'];
    const theirs = linesOf(slow.etcd, ...told);
    assert.ok(theirs.length > 30, `${theirs.length} lines`);
    assert.deepEqual(linesOf(slow.keelson, ...told), theirs);
  });

  it('requests at --log-level=debug: the same lines with the same fields', () => {
    const theirs = linesOf(debug.etcd, 'request stats', 'failed to apply request');
    assert.ok(theirs.length > 40, `${theirs.length} lines`);
    assert.deepEqual(linesOf(debug.keelson, 'request stats', 'failed to apply request'), theirs);
  });

  it('requests that took too long: the same lines', () => {
    // keelson takes the time as it was read last: what was answered in no time is not over a nanosecond there.
    const theirs = linesOf(slow.etcd, 'request stats');
    const ours = linesOf(slow.keelson, 'request stats');
    assert.ok(ours.length > 30, `${ours.length} lines`);
    for (const line of ours) {
      const at = theirs.indexOf(line);
      assert.ok(at >= 0, line);
      theirs.splice(at, 1);
    }
  });

  // That the time is the request's own: slow-requests.test.ts, with a request of known length.
  it('lines about requests name their client, their beginning and their length', () => {
    const lines = debug.keelson.lines.filter(({ msg }) => msg === 'request stats');
    assert.ok(lines.length > 40, `${lines.length} lines`);
    for (const line of lines) {
      assert.match(String(line['time spent']), /^[0-9.]+(ns|µs|ms|s)$/);
      const beganMs = Date.parse(String(line['start time']));
      assert.ok(beganMs > begunMs && beganMs <= Date.parse(String(line['ts'])), JSON.stringify(line));
      assert.match(String(line['remote']), /^127\.0\.0\.1:[0-9]+$/);
    }
  });
});

/** A line without times, ids of entries and the port of its client; protobuf's blanks between fields are one or two by chance. */
function withoutChance(line: Record<string, unknown>): string {
  const fixed = ['ts', 'caller', 'took', 'time spent', 'start time', 'logger'];
  const kept = Object.entries(line).filter(([key]) => !fixed.includes(key));
  return JSON.stringify(kept)
    .replaceAll(/ID:\d+/g, 'ID:…')
    .replaceAll(/127\.0\.0\.1:\d{5}\b/g, 'address')
    .replaceAll('  ', ' ');
}
