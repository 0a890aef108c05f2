// Goal: the KeyValue written in place is the one of the schema, byte for byte, and the view reads it back. Method: random values
// at the edges of their encodings, the schema codec as the other writer, and cuts at every byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { encode } from './message.ts';
import { KeyValue, KeyValueView, keyValueLength, writeKeyValueHead, writeKeyValueTail } from './mvccpb.ts';

const random = new SeededRandom(3);
const revisions = [0, 1, 127, 128, 2 ** 21, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];
const leases = [0n, 1n, 127n, 1n << 31n, 1n << 32n, (1n << 63n) - 1n, -1n, -(1n << 63n)];

function pick<T>(values: readonly T[]): T {
  return values[random.below(values.length)]!;
}

test('written in place as the schema writes it, and read back', () => {
  const view = new KeyValueView();
  for (let round = 0; round < 2000; round++) {
    const key = Buffer.alloc(1 + random.below(200));
    const value = Buffer.alloc(random.below(3) === 0 ? 0 : random.below(400));
    random.fill(key);
    random.fill(value);
    const [createRevision, modRevision, version, lease] = [
      pick(revisions),
      pick(revisions),
      pick(revisions),
      pick(leases),
    ];
    const high = Number(BigInt.asUintN(64, lease) >> 32n);
    const low = Number(BigInt.asUintN(32, lease));
    const expected = encode(KeyValue, { key, createRevision, modRevision, version, value, lease });
    const length = keyValueLength(key.length, createRevision, modRevision, version, value.length, high, low);
    assert.equal(length, expected.length);
    const out = Buffer.alloc(length + 10, 0xee);
    let end = writeKeyValueHead(out, 5, key, 0, key.length, createRevision, modRevision, version);
    end = writeKeyValueTail(out, end, value, 0, value.length, high, low);
    assert.equal(end, 5 + length);
    assert.deepEqual(out.subarray(5, end), expected);

    assert.ok(view.parse(out, 5, end));
    assert.deepEqual([view.createRevision, view.modRevision, view.version], [createRevision, modRevision, version]);
    assert.deepEqual(out.subarray(view.keyStart, view.keyEnd), key);
    assert.deepEqual(out.subarray(view.valueStart, view.valueEnd), value);
    assert.deepEqual([view.leaseHigh, view.leaseLow], [high, low]);
  }
});

test('parts of larger buffers', () => {
  const source = Buffer.from('..key..value..');
  const out = Buffer.alloc(32);
  const end = writeKeyValueTail(out, writeKeyValueHead(out, 0, source, 2, 5, 1, 2, 3), source, 7, 12, 0, 9);
  const expected = {
    key: Buffer.from('key'),
    createRevision: 1,
    modRevision: 2,
    version: 3,
    value: Buffer.from('value'),
  };
  assert.deepEqual(out.subarray(0, end), encode(KeyValue, { ...expected, lease: 9n }));
});

test('a reused view forgets the last KeyValue; cut or unknown bytes do not throw', () => {
  const view = new KeyValueView();
  const full = encode(KeyValue, { key: Buffer.from('k'), version: 4, value: Buffer.from('v'), lease: -5n });
  assert.ok(view.parse(full, 0, full.length));
  assert.ok(view.parse(Buffer.alloc(0), 0, 0));
  const zero = [
    view.keyEnd - view.keyStart,
    view.version,
    view.valueEnd - view.valueStart,
    view.leaseHigh,
    view.leaseLow,
  ];
  assert.deepEqual(zero, [0, 0, 0, 0, 0]);
  let refused = 0;
  for (let cut = 0; cut < full.length; cut++) if (!view.parse(full, 0, cut)) refused++;
  assert.ok(refused > full.length / 2);
  const extended = Buffer.concat([Buffer.from([0x3a, 1, 1, 0x40, 7]), full]);
  assert.ok(view.parse(extended, 0, extended.length));
  assert.equal(view.version, 4);
});
