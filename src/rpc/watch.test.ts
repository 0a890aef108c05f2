// Goal: clients that do not read cost bounded memory and hold up nobody, and get everything once they read again, in order and once.
// Method: a real member and the real engine over transports in memory: a thousand watchers that read, one client that gives no
// window and one whose socket is stuck; every event of every watcher is accounted for.

import assert from 'node:assert/strict';
import { afterEach, it } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { Router } from '../grpc/router.ts';
import type { GrpcServer } from '../grpc/server.ts';
import { FrameType, SettingId } from '../http2/frame.ts';
import { ResponseHeader, WatchRequest } from '../proto/etcdserverpb.ts';
import { decode, encode } from '../proto/message.ts';
import { Event } from '../proto/mvccpb.ts';
import {
  frameOf,
  grpcFields,
  grpcMessage,
  memoryServer,
  setting,
  TestClient,
  uint32,
} from '../testing/http2-client.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { registerWatch } from './watch.ts';

const WatchResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  watchId: { no: 2, kind: 'int' },
  created: { no: 3, kind: 'bool' },
  canceled: { no: 4, kind: 'bool' },
  fragment: { no: 7, kind: 'bool' },
  events: { no: 11, kind: Event as typeof Event, repeated: true },
} as const;

let fixture: MemberFixture;
afterEach(async () => {
  await fixture.stop();
  fixture.remove();
});

const valueBytes = 1000;

/** What was put, by revision: no two values are the same. */
const values: Map<number, Buffer> = new Map();

async function putAt(revision: number, bytes: number): Promise<void> {
  const text = `${revision}.`.repeat(bytes / 2).slice(0, bytes);
  values.set(revision, Buffer.from(text));
  assert.equal(await fixture.put('k', text), revision);
}

const counters = { streams: 0 };

async function setUp(fragmentBytes = 1024 * 1024): Promise<GrpcServer> {
  fixture = new MemberFixture();
  const member = await fixture.start();
  const router = new Router();
  registerWatch(router, member, {
    fragmentBytes,
    progressIntervalMs: 600_000,
    random: () => 0,
    setTimer: () => undefined,
    counters,
    metrics: fixture.metrics.watch,
  });
  return memoryServer({ router, schedule: setImmediate });
}

/** One turn of the event loop and what it schedules. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

/** A client with streams of watchers on one key. */
class WatchClient {
  readonly client: TestClient;
  /** Revisions of the events of each watcher, by stream and watch id. */
  readonly given: Map<string, number[]> = new Map();
  fragmentCount = 0;
  private readonly streams: number[] = [];
  private readonly partial: Map<number, Buffer> = new Map();

  constructor(server: GrpcServer, streamWindow: number) {
    this.client = new TestClient(server).open(setting(SettingId.initialWindowSize, streamWindow));
    this.client.send(frameOf(FrameType.windowUpdate, 0, 0, uint32(1 << 30)));
  }

  watch(key: string, streamCount: number, watchersEach: number, fragment = false): this {
    const request = grpcMessage(encode(WatchRequest, { createRequest: { key: Buffer.from(key), fragment } }));
    const fields = grpcFields('').map((field) =>
      field.name === ':path' ? { ...field, value: '/etcdserverpb.Watch/Watch' } : field,
    );
    for (let i = 0; i < streamCount; i++) {
      const id = this.client.newId();
      this.streams.push(id);
      this.client.send(
        this.client.headers(id, fields),
        ...Array.from({ length: watchersEach }, () => frameOf(FrameType.data, 0, id, request)),
      );
    }
    return this;
  }

  /** Takes what has come; with `grant`, as much window is given back. */
  read(grant: boolean): void {
    let total = 0;
    const updates: Buffer[] = [];
    for (const { type, id, payload } of this.client.frames()) {
      assert.ok(type !== FrameType.goAway && type !== FrameType.rstStream, 'the server gives up');
      if (type !== FrameType.data) continue;
      total += payload.length;
      if (grant) updates.push(frameOf(FrameType.windowUpdate, 0, id, uint32(payload.length)));
      this.messages(id, payload);
    }
    if (grant && total > 0) this.client.send(...updates, frameOf(FrameType.windowUpdate, 0, 0, uint32(total)));
  }

  /** Opens the windows of streams that had none. */
  open(bytes: number): void {
    this.client.send(...this.streams.map((id) => frameOf(FrameType.windowUpdate, 0, id, uint32(bytes))));
  }

  private messages(stream: number, payload: Buffer): void {
    let rest = Buffer.concat([this.partial.get(stream) ?? Buffer.alloc(0), payload]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      const response = decode(WatchResponse, rest, 5, end)!;
      assert.ok(!response.canceled, 'a watcher is cancelled');
      const name = `${stream}/${response.watchId}`;
      if (response.created) this.given.set(name, []);
      for (const { kv } of response.events) {
        const { modRevision, value } = kv!;
        assert.ok(value.equals(values.get(modRevision)!), `${name}: the value of another revision`);
        this.given.get(name)!.push(modRevision);
      }
      this.fragmentCount += response.fragment ? 1 : 0;
      rest = rest.subarray(end);
    }
    this.partial.set(stream, rest);
  }

  /** Whether every watcher has the events of the revisions from 2 to `revision`. */
  hasAll(watcherCount: number, revision: number): boolean {
    if (this.given.size !== watcherCount) return false;
    return [...this.given.values()].every((given) => given.length === revision - 1);
  }

  checkOrder(): void {
    for (const [name, given] of this.given) {
      assert.ok(
        given.every((revision, i) => revision === i + 2),
        `${name}: not each revision, once, in order`,
      );
    }
  }

  /** Sends the same bytes on each stream. */
  data(bytes: Buffer): void {
    this.client.send(...this.streams.map((id) => frameOf(FrameType.data, 0, id, bytes)));
  }

  /** What the server holds for this client. */
  get heldBytes(): number {
    const { writer } = this.client.connection.http2;
    return writer.pendingBytes + writer.output.length + this.client.transport.pendingBytes;
  }
}

it('holds a bound for who does not read, while a thousand watchers go on; then gives everything, once', async () => {
  const server = await setUp();
  const { hub } = fixture.member.parts;
  const readers = Array.from({ length: 10 }, () => new WatchClient(server, 1 << 20).watch('k', 10, 10));
  const slowCount = 20;
  const windowless = new WatchClient(server, 0).watch('k', 1, slowCount);
  const stuck = new WatchClient(server, 1 << 30).watch('k', 1, slowCount);
  stuck.client.transport.blocked = true;
  assert.equal(hub.watcherCount, 1000 + 2 * slowCount);

  let revision = 1;
  const put = async (): Promise<void> => {
    await putAt(++revision, valueBytes);
    await turn();
  };
  // A response and the watchers that are sent it before the stream is found full.
  const slack = slowCount * (valueBytes + 200);
  for (let i = 0; i < 200; i++) {
    await put();
    for (const reader of readers) {
      reader.read(true);
      assert.ok(reader.hasAll(100, revision), `not everything at once at revision ${revision}`);
    }
    const queued = http2Limits.streamHighWaterBytes + slack;
    assert.ok(windowless.heldBytes <= queued, `${windowless.heldBytes} bytes are held for lack of a window`);
    const direct = http2Limits.outputDirectBytes + queued;
    assert.ok(stuck.heldBytes <= direct, `${stuck.heldBytes} bytes are held for a stuck socket`);
  }
  const bytesDue = 200 * slowCount * valueBytes;
  assert.ok(bytesDue > 2 * http2Limits.outputDirectBytes, 'more was due than the bounds');
  assert.equal(hub.unsyncedCount, 2 * slowCount);
  assert.ok(!hub.hasCatchUp, 'nobody looks at those who cannot be written to');

  // Both read again, in small steps and while writing goes on.
  windowless.open(100_000);
  stuck.client.transport.blocked = false;
  stuck.client.transport.pendingBytes = 0;
  stuck.client.connection.transportDrained();
  for (let i = 0; i < 50; i++) {
    await put();
    windowless.read(true);
    stuck.read(true);
  }
  for (let i = 0; i < 1000 && !(windowless.hasAll(slowCount, revision) && stuck.hasAll(slowCount, revision)); i++) {
    await turn();
    windowless.read(true);
    stuck.read(true);
  }
  assert.equal(hub.unsyncedCount, 0);
  for (const reader of readers) reader.read(true);
  for (const client of [...readers, windowless, stuck]) {
    client.checkOrder();
    assert.ok(client.hasAll(client === windowless || client === stuck ? slowCount : 100, revision));
  }
  for (const { client } of [...readers, windowless, stuck]) client.connection.destroy();
  assert.equal(hub.watcherCount, 0);
  hub.checkInvariants();
});

for (const [what, bytes] of [
  ['a malformed request', grpcMessage(Buffer.of(0x0a, 0xff))],
  ['a message that is too large', Buffer.of(0, 0x7f, 0xff, 0xff, 0xff)],
  ['an unknown flag', Buffer.of(7, 0, 0, 0, 0)],
] as const) {
  it(`has no watcher left of a stream that ${what} has ended, be it blocked or not`, async () => {
    const server = await setUp();
    const { hub } = fixture.member.parts;
    counters.streams = 0;
    const reader = new WatchClient(server, 1 << 20).watch('k', 3, 10);
    const blocked = new WatchClient(server, 0).watch('k', 2, 10);
    for (let revision = 2; revision < 8; revision++) {
      await putAt(revision, 20_000);
      await turn();
      reader.read(true);
    }
    assert.deepEqual([hub.watcherCount, counters.streams], [50, 5]);
    assert.ok(hub.unsyncedCount >= 20 && hub.unsyncedCount < 50, 'some are blocked, some are not');
    for (const client of [reader, blocked]) client.data(bytes);
    await turn();
    assert.deepEqual([hub.watcherCount, hub.unsyncedCount, counters.streams], [0, 0, 0]);
    hub.checkInvariants();
    for (const { client } of [reader, blocked]) client.connection.destroy();
  });
}

it('counts each response in the histograms of the send loop, whoever shares it', async () => {
  const server = await setUp();
  const { watch } = fixture.metrics;
  const before = [watch.sendLoop.count, watch.sendLoopPerEvent.count, watch.sendLoopControl.count];
  const clients = [
    new WatchClient(server, 1 << 20).watch('k', 2, 3),
    new WatchClient(server, 1 << 20).watch('k', 1, 1),
  ];
  clients[1]!.watch('other', 1, 1);
  for (let i = 0; i < 5; i++) {
    await putAt(i + 2, 10);
    await turn();
  }
  assert.equal(watch.sendLoop.count - before[0]!, 5 * 7);
  assert.equal(watch.sendLoopPerEvent.count - before[1]!, 5 * 7);
  assert.equal(watch.sendLoopControl.count - before[2]!, 8);
  assert.ok(watch.sendLoop.sum > 0 && watch.sendLoop.sum >= watch.sendLoopPerEvent.sum);
  assert.equal(fixture.member.parts.hub.eventsTotal, 5 * 7);
  for (const { client } of clients) client.connection.destroy();
});

it('keeps what waits for a client as it was: copied or shared, whole or in fragments', async () => {
  const server = await setUp(5000);
  const quick = new WatchClient(server, 1 << 20).watch('k', 1, 2).watch('k', 1, 2, true);
  const slow = new WatchClient(server, 0).watch('k', 1, 2).watch('k', 1, 2, true);
  let revision = 1;
  // Turns of several puts, so that there is something to split, below and above the size up to which events are copied.
  for (const bytes of [100, 3000, 5000, 5000, 20_000, 5000, 3000, 100, 40_000, 5000]) {
    await Promise.all(Array.from({ length: 4 }, () => putAt(++revision, bytes)));
    await turn();
    quick.read(true);
  }
  assert.ok(quick.hasAll(4, revision));
  assert.ok(slow.heldBytes > 0 && slow.given.size === 0);
  slow.open(1 << 20);
  for (let i = 0; i < 100 && !slow.hasAll(4, revision); i++) {
    await turn();
    slow.read(true);
  }
  for (const client of [quick, slow]) {
    assert.ok(client.hasAll(4, revision));
    client.checkOrder();
    assert.ok(client.fragmentCount > 0);
    client.client.connection.destroy();
  }
});
