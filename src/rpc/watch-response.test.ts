// Goal: watch answers that any protobuf decoder reads as meant. Method: what the encoder writes, decoded by schema, over the edges of
// every field.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BatchPool, batchHeadBytes } from '../mvcc/event-batch.ts';
import { ResponseHeader } from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import { Event } from '../proto/mvccpb.ts';
import { ResponseHeaderEncoder } from '../server/response-header.ts';
import { WatchResponseEncoder } from './watch-response.ts';

const WatchResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  watchId: { no: 2, kind: 'int64' },
  created: { no: 3, kind: 'bool' },
  canceled: { no: 4, kind: 'bool' },
  compactRevision: { no: 5, kind: 'int' },
  cancelReason: { no: 6, kind: 'string' },
  fragment: { no: 7, kind: 'bool' },
  events: { no: 11, kind: Event as typeof Event, repeated: true },
} as const;

const header = new ResponseHeaderEncoder(0xcdf818194e3a8c32n, 0x8e9e05c52164694dn);
header.term = 2;
const encoder = new WatchResponseEncoder(header);
const ids = [0, 1, 127, 128, 0x7fffffff, 0x80000000, 2 ** 53 - 1, 1n << 53n, (1n << 63n) - 1n, -1n, -(1n << 63n)];

test('control answers', () => {
  for (const watchId of ids) {
    for (const [created, canceled, compactRevision, cancelReason] of [
      [true, false, 0, ''],
      [true, true, 0, 'mvcc: watcher range is empty'],
      [false, true, 123_456, ''],
      [false, false, 0, ''],
    ] as const) {
      const bytes = encoder.control(77, watchId, created, canceled, compactRevision, cancelReason);
      const { header: head, events, ...rest } = decode(WatchResponse, bytes)!;
      const flags = { created, canceled, compactRevision, cancelReason, fragment: false };
      assert.deepEqual({ ...rest }, { watchId: BigInt(watchId), ...flags });
      assert.deepEqual(events, []);
      assert.equal(head!.revision, 77);
      assert.equal(head!.raftTerm, 2);
    }
  }
});

test('a revision of 0 is left out, as etcd leaves it in the answer about a compaction', () => {
  const head = decode(WatchResponse, encoder.control(0, 5n, false, true, 9, ''))!.header!;
  assert.equal(head.revision, 0);
  assert.equal(head.clusterId, 0xcdf818194e3a8c32n);
});

// kv { key "k" mod_revision 7 }
const event = Buffer.from([0x5a, 7, 0x12, 5, 0x0a, 1, 0x6b, 0x18, 7]);

test('the head of a part of the events', () => {
  for (const watchId of ids) {
    const kept = encoder.eventsHead(8, watchId, true);
    encoder.eventsHead(9, 1, false);
    // Kept bytes are not the encoder's buffer.
    const part = decode(WatchResponse, Buffer.concat([kept, event]))!;
    assert.equal(part.header!.revision, 8);
    assert.equal(part.watchId, BigInt(watchId));
    assert.equal(part.fragment, true);
    assert.equal(part.events.length, 1);
  }
});

test('the heads of a batch, one after the other in the same room', () => {
  const pool = new BatchPool();
  // Up, down, and the same again: lengths change in every direction. Revisions and terms change between batches.
  const order = [...ids, ...ids.toReversed(), ...ids.flatMap((id) => [id, id])];
  for (const [revision, term] of [
    [8, 2],
    [8, 300],
    [5_000_000_000, 300],
    [9, 2],
  ] as const) {
    header.term = term;
    const batch = pool.take(7);
    batch.revision = revision;
    batch.body.copy(event, 0, event.length);
    batch.body.copy(event, 0, event.length);
    for (const watchId of order) {
      const start = encoder.placeHead(batch, watchId);
      const answer = decode(WatchResponse, batch.body.bytes, start, batch.body.length)!;
      assert.equal(answer.watchId, BigInt(watchId));
      assert.deepEqual([answer.header!.revision, answer.header!.raftTerm], [revision, term]);
      assert.equal(answer.header!.clusterId, 0xcdf818194e3a8c32n);
      assert.deepEqual([answer.fragment, answer.created, answer.canceled], [false, false, false]);
      assert.equal(answer.events.length, 2);
      assert.equal(answer.events[1]!.kv!.key.toString(), 'k');
      assert.ok(start > 0 && start <= batchHeadBytes);
    }
    pool.give(batch);
  }
  header.term = 2;
});
