// Goal: watch answers that any protobuf decoder reads as meant. Method: what the encoder writes, decoded by schema, over the edges of
// every field.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponseHeader } from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import { Event } from '../proto/mvccpb.ts';
import { ResponseHeaderEncoder } from '../server/response-header.ts';
import { WatchResponseEncoder, watchIdField } from './watch-response.ts';

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
const ids = [0n, 1n, 127n, 128n, 0x7fffffffn, 0x80000000n, (1n << 63n) - 1n, -1n, -(1n << 63n)];

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
      assert.deepEqual({ ...rest }, { watchId, ...flags });
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

test('events: the head and whole answers', () => {
  // kv { key "k" mod_revision 7 }, twice.
  const event = [0x5a, 7, 0x12, 5, 0x0a, 1, 0x6b, 0x18, 7];
  const body = Buffer.from([0xee, ...event, ...event, 0xee]);
  for (const watchId of ids) {
    const idField = watchIdField(watchId);
    const kept = encoder.eventsHead(8, idField, true);
    const whole = encoder.events(8, idField, body, 1, body.length - 1);
    const answer = decode(WatchResponse, whole.bytes, 0, whole.length)!;
    assert.equal(answer.watchId, watchId);
    assert.equal(answer.fragment, false);
    assert.equal(answer.events.length, 2);
    assert.equal(answer.events[1]!.kv!.key.toString(), 'k');
    // Kept bytes are not the encoder's buffer.
    const part = decode(WatchResponse, Buffer.concat([kept, body.subarray(1, 1 + event.length)]))!;
    assert.equal(part.watchId, watchId);
    assert.equal(part.fragment, true);
    assert.equal(part.events.length, 1);
  }
});
