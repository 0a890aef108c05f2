// Goal: a log entry is etcd's InternalRaftRequest and its id comes back. Method: the schema codec as the other side, ids at the
// edges of 16 and 48 bits, request fields below and above the header's number, cuts at every byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestHeader } from './etcdserverpb.ts';
import { encodeInternalRequest, InternalRequest, RequestField } from './internal-request.ts';
import { decode, encode, type Schema } from './message.ts';

const counters = [0, 1, 127, 128, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 48 - 1];
const prefixes = [0, 1, 0x7fff, 0x8000, 0xffff];

function entrySchema(field: number): Schema {
  return { request: { no: field, kind: 'bytes' }, header: { no: 100, kind: RequestHeader } };
}

test('every field and id, as the schema writes it, and read back', () => {
  const message = Buffer.from('..request..');
  const request = new InternalRequest();
  for (const field of Object.values(RequestField)) {
    for (const prefix of prefixes) {
      for (const counter of counters) {
        const id = (BigInt(prefix) << 48n) | BigInt(counter);
        const entry = encodeInternalRequest(field, message, 2, 9, prefix, counter);
        const decoded = decode(entrySchema(field), entry) as unknown as { request: Buffer; header: { id: bigint } };
        assert.equal(decoded.header.id, id);
        assert.equal(decoded.request.toString(), 'request');
        // Go writes no zero; an id of 0 is never given.
        if (id !== 0n) {
          assert.deepEqual(
            entry,
            encode(entrySchema(field), { request: Buffer.from('request'), header: { id } } as never),
          );
        }
        const around = Buffer.concat([Buffer.from([1]), entry, Buffer.from([8])]);
        assert.ok(request.parse(around, 1, 1 + entry.length));
        assert.deepEqual([request.field, request.idPrefix, request.idCounter], [field, prefix, counter]);
        assert.equal(around.toString('latin1', request.start, request.end), 'request');
      }
    }
  }
});

test('an empty and a long request', () => {
  const request = new InternalRequest();
  for (const length of [0, 127, 128, 20_000]) {
    const message = Buffer.alloc(length, 7);
    const entry = encodeInternalRequest(RequestField.put, message, 0, length, 1, 1);
    assert.ok(request.parse(entry, 0, entry.length));
    assert.deepEqual([request.field, request.end - request.start], [RequestField.put, length]);
  }
});

test('an entry of etcd: user name, auth revision and unknown fields beside the request', () => {
  const header = encode(RequestHeader, { id: 0x1234_5678_9abc_def0n, username: 'root', authRevision: 5 });
  const entry = Buffer.concat([Buffer.from([0x08, 0x05, 0x22, 2, 1, 2, 0xa2, 0x06, header.length]), header]);
  const request = new InternalRequest();
  assert.ok(request.parse(entry, 0, entry.length));
  assert.deepEqual([request.field, request.idPrefix, request.idCounter], [4, 0x1234, 0x5678_9abc_def0]);
});

test('reused, an entry without a request has none; cut entries are refused or lack a part', () => {
  const request = new InternalRequest();
  const entry = encodeInternalRequest(RequestField.txn, Buffer.from('abc'), 0, 3, 9, 2 ** 40);
  assert.ok(request.parse(entry, 0, entry.length));
  assert.ok(request.parse(entry, 0, 0));
  assert.deepEqual([request.field, request.idPrefix, request.idCounter], [0, 0, 0]);
  for (let cut = 1; cut < entry.length; cut++) {
    const isWhole = request.parse(entry, 0, cut);
    assert.ok(!isWhole || request.idCounter === 0, `cut at ${cut}`);
  }
  const badHeader = Buffer.from([0xa2, 0x06, 2, 0x08, 0x80]);
  assert.equal(request.parse(badHeader, 0, badHeader.length), false);
});
