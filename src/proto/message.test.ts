// Goal: the schema codec is protobuf's: what it writes comes back, other encodings of the same message are read alike, and
// malformed bytes are refused. Method: every schema of the server with random values, truncated at every byte; then each rule of
// the encoding by hand-made bytes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { StatusResponse, WatchRequest } from './etcdserverpb.ts';
import { decode, encode, type Message, type Schema } from './message.ts';
import { allSchemas, randomMessage } from './message-fixture.ts';
import { Event, KeyValue } from './mvccpb.ts';
import { ConfChange } from './raftpb.ts';

const Sample = {
  int: { no: 1, kind: 'int' },
  uint: { no: 2, kind: 'uint' },
  id: { no: 3, kind: 'uint64' },
  flag: { no: 4, kind: 'bool' },
  bytes: { no: 5, kind: 'bytes' },
  text: { no: 6, kind: 'string' },
  type: { no: 7, kind: 'enum' },
  inner: { no: 8, kind: { a: { no: 1, kind: 'int' }, list: { no: 2, kind: 'int', repeated: true } } },
  numbers: { no: 9, kind: 'int', repeated: true },
  texts: { no: 2000, kind: 'string', repeated: true },
  left: { no: 11, kind: 'int', oneof: 'side' },
  right: { no: 12, kind: { a: { no: 1, kind: 'int' } }, oneof: 'side' },
  maybe: { no: 13, kind: 'int', optional: true },
} as const;

function read(...bytes: number[]): Message<typeof Sample> {
  const message = decode(Sample, Buffer.from(bytes));
  assert.ok(message !== undefined, `refused: ${bytes}`);
  return message;
}

test('every schema: random messages come back; cut anywhere they are read or refused, never thrown', () => {
  assert.ok(allSchemas.length > 40, `only ${allSchemas.length} schemas`);
  const random = new SeededRandom(1);
  for (const [name, schema] of allSchemas) {
    for (let round = 0; round < 30; round++) {
      const message = randomMessage(schema, random);
      const bytes = encode(schema, message);
      const around = Buffer.concat([Buffer.from([1, 2, 3]), bytes, Buffer.from([8, 1])]);
      assert.deepEqual(decode(schema, around, 3, 3 + bytes.length), message, name);
      const cuts = round < 3 ? bytes.length : 0;
      for (let cut = 0; cut < cuts; cut++) decode(schema, bytes, 0, cut);
    }
  }
});

test('an empty message has all its scalars at zero, and writes nothing', () => {
  const empty = read();
  assert.deepEqual(
    { ...empty },
    {
      int: 0,
      uint: 0,
      id: 0n,
      flag: false,
      bytes: Buffer.alloc(0),
      text: '',
      type: 0,
      inner: undefined,
      numbers: [],
      texts: [],
      left: undefined,
      right: undefined,
      maybe: undefined,
    },
  );
  assert.equal(encode(Sample, empty).length, 0);
  assert.equal(encode(Sample, {}).length, 0);
});

test('fields are written in ascending order with canonical lengths', () => {
  const bytes = encode(Sample, { texts: ['x'], int: -1, flag: true, inner: {}, numbers: [1, 300], left: 0, maybe: 0 });
  const expected = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0x20, 1, 0x42, 0, 0x48, 1, 0x48, 0xac, 0x02];
  expected.push(0x58, 0, 0x68, 0, 0x82, 0x7d, 1, 0x78);
  assert.deepEqual([...bytes], expected);
  const kv = { key: Buffer.from('k'), createRevision: 2, modRevision: 300, version: 1, value: Buffer.from('v') };
  assert.equal(encode(Event, { type: 1, kv }).toString('hex'), '0801120d0a016b100218ac0220012a0176');
});

test('proto2 messages write their zeros', () => {
  const bytes = encode(ConfChange, { id: 0n, type: 0, nodeId: 5n, context: Buffer.alloc(0) });
  assert.deepEqual([...bytes], [0x08, 0, 0x10, 0, 0x18, 5, 0x22, 0]);
  assert.deepEqual(decode(ConfChange, bytes), { id: 0n, type: 0, nodeId: 5n, context: Buffer.alloc(0) });
  assert.equal(decode(ConfChange, Buffer.alloc(0))?.id, undefined);
});

test('unknown fields of every wire type are skipped; the end of a group and field 0 are malformed', () => {
  const unknown = [0x78, 5, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7a, 2, 1, 2, 0x7d, 1, 2, 3, 4];
  assert.equal(read(...unknown, 0x08, 9).int, 9);
  // Groups, also under the number of a field that is known: none of the schemas has one.
  assert.equal(read(0x7b, ...unknown, 0x0b, 0x0c, 0x7c, 0x08, 9, 0x0b, 0x08, 7, 0x0c).int, 9);
  assert.deepEqual({ ...read(0x42, 6, 0x08, 7, 0x1b, 0x1c, 0x10, 1).inner }, { a: 7, list: [1] });
  for (const bad of [
    [0x7c],
    [0x7b],
    [0x7b, 0x84, 0x01],
    [0x42, 1, 0x0b, 0x0c],
    [0x00, 0x00],
    [0x7e],
    [0x7f],
    [0x7a, 3, 1],
    [0x79, 1],
    [0x7d, 1],
  ]) {
    assert.equal(decode(Sample, Buffer.from(bad)), undefined, `${bad}`);
  }
});

test('a known field with another wire type is skipped', () => {
  const message = read(0x0a, 1, 7, 0x0d, 1, 2, 3, 4, 0x28, 1, 0x40, 3, 0x58, 4, 0x5a, 1, 9);
  assert.equal(message.int, 0);
  assert.equal(message.bytes.length, 0);
  assert.equal(message.inner, undefined);
  assert.equal(message.left, 4);
});

test('of a singular field the last value counts; embedded messages are merged', () => {
  assert.equal(read(0x08, 1, 0x08, 2).int, 2);
  assert.equal(read(0x08, 1, 0x08, 0).int, 0, 'an explicit zero is a value');
  assert.deepEqual({ ...read(0x42, 4, 0x08, 7, 0x10, 1, 0x42, 2, 0x10, 2).inner }, { a: 7, list: [1, 2] });
  assert.deepEqual({ ...read(0x42, 2, 0x08, 7, 0x42, 2, 0x08, 8).inner }, { a: 8, list: [] });
});

test('of a oneof the last member on the wire counts', () => {
  const left = [0x58, 4];
  const right = [0x62, 2, 0x08, 5];
  const onlyLeft = read(...right, ...left);
  assert.deepEqual([onlyLeft.left, onlyLeft.right], [4, undefined]);
  const onlyRight = read(...left, ...right);
  assert.deepEqual([onlyRight.left, { ...onlyRight.right }], [undefined, { a: 5 }]);
  assert.equal(read(0x58, 0).left, 0, 'a zero is a member that was sent');
  assert.equal(read(...right, ...left, 0x62, 0).right?.a, 0, 'a member that comes back starts anew');
  assert.equal(read(...left, 0x60, 1).left, 4, 'a member with a wrong wire type is no member');

  const create = encode(WatchRequest, { createRequest: { key: Buffer.from('k') } });
  const cancel = encode(WatchRequest, { cancelRequest: { watchId: 3n } });
  const watch = decode(WatchRequest, Buffer.concat([cancel, create]));
  assert.deepEqual([watch?.createRequest?.key.toString(), watch?.cancelRequest], ['k', undefined]);
  assert.equal(decode(WatchRequest, Buffer.concat([create, cancel]))?.createRequest, undefined);
});

test('repeated scalars: packed, one by one, and mixed', () => {
  assert.deepEqual(read(0x4a, 3, 1, 0xac, 0x02, 0x48, 7, 0x4a, 0, 0x4a, 1, 8).numbers, [1, 300, 7, 8]);
  for (const bad of [
    [0x4a, 1, 0x80],
    [0x4a, 3, 1],
  ])
    assert.equal(decode(Sample, Buffer.from(bad)), undefined);
  assert.equal(decode(Sample, Buffer.from([0x4a, 1, 0x80, 0x01])), undefined, 'a varint ends within its field');
});

test('numbers beyond their kind', () => {
  const wide = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
  assert.equal(read(0x38, ...wide).type, 1, 'an enum keeps the low 32 bits');
  assert.equal(read(0x18, ...wide).id, (1n << 63n) + 1n);
  assert.equal(read(0x20, 0x80, 0x80, 0x80, 0x80, 0x10).flag, true, 'a bool looks at all bits');
});

test('text is UTF-8', () => {
  assert.equal(read(0x32, 2, 0xc3, 0xb6).text, 'ö');
  for (const bad of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) {
    assert.equal(decode(Sample, Buffer.from([0x32, bad.length, ...bad])), undefined, `${bad}`);
    assert.equal(decode(Sample, Buffer.from([0x82, 0x7d, bad.length, ...bad])), undefined, `repeated ${bad}`);
  }
});

test('bytes are views on the input', () => {
  const bytes = encode(KeyValue, { key: Buffer.from('key') });
  const message = decode(KeyValue, bytes);
  bytes[2] = 0x4b;
  assert.equal(message?.key.toString(), 'Key');
});

test('nesting is bounded', () => {
  const Deep: { inner: { no: number; kind: Schema } } = { inner: { no: 1, kind: {} } };
  Deep.inner.kind = Deep;
  const nested = (depth: number): Buffer => {
    let bytes = Buffer.alloc(0);
    for (let i = 0; i < depth; i++) bytes = Buffer.concat([Buffer.from([0x0a, ...length(bytes.length)]), bytes]);
    return bytes;
  };
  assert.notEqual(decode(Deep, nested(100)), undefined);
  assert.equal(decode(Deep, nested(101)), undefined);
  assert.equal(decode(Deep, nested(5000)), undefined);
});

function length(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, value >> 7];
}

test('two fields with one number are a bug', () => {
  assert.throws(() => encode({ a: { no: 1, kind: 'int' }, b: { no: 1, kind: 'int' } }, {}), /share a number/);
  assert.equal(encode(StatusResponse, { errors: ['a', ''] }).toString('hex'), '4201614200');
});
