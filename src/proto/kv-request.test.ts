// Goal: Range, Put, DeleteRange and Txn are read in place exactly as the schema codec reads them, by objects that forget the last
// request. Method: random requests encoded by schema (kv-schema.ts), compared field by field, cut at every byte; then
// the rules of oneofs, repeated members and nesting by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import {
  Compare,
  DeleteRangeRequest,
  EmptyOp,
  PutRequest,
  RangeRequest,
  type RequestOp,
  TxnRequest,
} from './kv-request.ts';
import {
  type Compare as CompareSchema,
  DeleteRangeRequest as DeleteSchema,
  PutRequest as PutSchema,
  RangeRequest as RangeSchema,
  type RequestOpSchema,
  type TxnRequestSchema,
  TxnRequest as TxnSchema,
} from './kv-schema.ts';
import { decode, encode, type MessageInit, type Schema } from './message.ts';
import { randomMessage } from './message-fixture.ts';

type TxnInit = MessageInit<TxnRequestSchema>;
type OpInit = MessageInit<RequestOpSchema>;

const random = new SeededRandom(5);

function bytesOf(buffer: Buffer, start: number, end: number): Buffer {
  return buffer.subarray(start, end);
}

function leaseOf(request: PutRequest | Compare): bigint {
  return BigInt.asIntN(64, (BigInt(request.leaseHigh) << 32n) | BigInt(request.leaseLow));
}

/** What was parsed, as the schema codec would give it. */
function plainRange(request: RangeRequest): object {
  const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd, ...options } = request;
  return {
    key: bytesOf(buffer, keyStart, keyEnd),
    rangeEnd: bytesOf(buffer, rangeEndStart, rangeEndEnd),
    ...options,
  };
}

function plainPut(request: PutRequest): object {
  const { buffer, keyStart, keyEnd, valueStart, valueEnd, prevKv, ignoreValue, ignoreLease } = request;
  return {
    key: bytesOf(buffer, keyStart, keyEnd),
    value: bytesOf(buffer, valueStart, valueEnd),
    lease: leaseOf(request),
    prevKv,
    ignoreValue,
    ignoreLease,
  };
}

function plainDelete(request: DeleteRangeRequest): object {
  const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd, prevKv } = request;
  return {
    key: bytesOf(buffer, keyStart, keyEnd),
    rangeEnd: bytesOf(buffer, rangeEndStart, rangeEndEnd),
    prevKv,
  };
}

/** Around the request there are other bytes, as in a socket's buffer. */
function framed(bytes: Buffer): readonly [Buffer, number, number] {
  return [Buffer.concat([Buffer.from([0x0a, 0x05]), bytes, Buffer.from([0x08, 0x01])]), 2, 2 + bytes.length];
}

test('range, put and delete, reused, equal the schema codec; cut anywhere nothing is thrown', () => {
  const range = new RangeRequest();
  const put = new PutRequest();
  const deletion = new DeleteRangeRequest();
  const kinds: readonly (readonly [Schema, RangeRequest | PutRequest | DeleteRangeRequest, () => object])[] = [
    [RangeSchema, range, () => plainRange(range)],
    [PutSchema, put, () => plainPut(put)],
    [DeleteSchema, deletion, () => plainDelete(deletion)],
  ];
  for (let round = 0; round < 3000; round++) {
    const [schema, request, plain] = kinds[round % 3]!;
    const message = randomMessage(schema, random);
    const bytes = encode(schema, message);
    assert.ok(request.parse(...framed(bytes)));
    assert.deepEqual(plain(), message);
    for (let cut = 0; round < 60 && cut < bytes.length; cut++) {
      const expected = decode(schema, bytes, 0, cut);
      const isRead = request.parse(bytes, 0, cut);
      assert.equal(isRead, expected !== undefined);
      if (isRead) assert.deepEqual(plain(), { ...expected });
    }
  }
});

test('a put knows whether it has a lease', () => {
  const put = new PutRequest();
  for (const lease of [0n, 1n, 1n << 32n, -1n]) {
    const bytes = encode(PutSchema, { key: Buffer.from('k'), lease });
    assert.ok(put.parse(bytes, 0, bytes.length));
    assert.equal(put.hasLease, lease !== 0n);
  }
});

test('unknown fields and known ones with another wire type are skipped', () => {
  const unknown = Buffer.from([
    0x7a, 1, 9, 0x08, 5, 0x15, 1, 2, 3, 4, 0x1a, 1, 1, 0xa0, 0x06, 1, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x7b, 0x0b, 0x0c,
    0x08, 5, 0x7c, 0x0b, 0x0a, 1, 0x78, 0x0c,
  ]);
  const bytes = Buffer.concat([unknown, Buffer.from([0x0a, 1, 0x6b]), unknown]);
  for (const request of [new RangeRequest(), new PutRequest(), new DeleteRangeRequest()]) {
    assert.ok(request.parse(bytes, 0, bytes.length));
    assert.equal(bytes.toString('latin1', request.keyStart, request.keyEnd), 'k');
  }
  const txn = new TxnRequest();
  const inTxn = Buffer.concat([
    Buffer.from([0x7a, 1, 9, 0x08, 5, 0x15, 1, 2, 3, 4, 0x13, 0x12, 0, 0x14]),
    encode(TxnSchema, { success: [{}] }),
  ]);
  assert.ok(txn.parse(inTxn, 0, inTxn.length));
  assert.equal(txn.success.length, 1);
});

test('enums keep the low 32 bits, as in Go', () => {
  const wide = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
  const range = new RangeRequest();
  const bytes = Buffer.from([0x28, ...wide, 0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
  assert.ok(range.parse(bytes, 0, bytes.length));
  assert.deepEqual([range.sortOrder, range.sortTarget], [1, -1]);
});

function randomTxn(depth: number): TxnInit {
  const ops = (): OpInit[] => Array.from({ length: random.below(4) }, () => randomOp(depth));
  return {
    compare: Array.from({ length: random.below(3) }, () => randomCompare()),
    success: ops(),
    failure: ops(),
  };
}

function randomCompare(): MessageInit<typeof CompareSchema> {
  const number = random.below(1000) - 100;
  const targets = [
    {},
    { version: number },
    { createRevision: number },
    { modRevision: number },
    { value: Buffer.from(`v${number}`) },
    { lease: BigInt.asIntN(64, random.uint64()) },
  ];
  return {
    result: random.below(4),
    target: random.below(5),
    key: Buffer.from(`k${number}`),
    rangeEnd: Buffer.from(random.below(2) === 0 ? '' : 'z'),
    ...targets[random.below(targets.length)]!,
  };
}

function randomOp(depth: number): OpInit {
  switch (random.below(depth > 2 ? 4 : 5)) {
    case 0:
      return { requestRange: randomMessage(RangeSchema, random) as MessageInit<typeof RangeSchema> };
    case 1:
      return { requestPut: randomMessage(PutSchema, random) as MessageInit<typeof PutSchema> };
    case 2:
      return { requestDeleteRange: randomMessage(DeleteSchema, random) as MessageInit<typeof DeleteSchema> };
    case 3:
      return {};
    default:
      return { requestTxn: randomTxn(depth + 1) };
  }
}

function plainTxn(txn: TxnRequest): TxnInit {
  return {
    compare: txn.compare.map(plainCompare),
    success: txn.success.map(plainOp),
    failure: txn.failure.map(plainOp),
  } as TxnInit;
}

function plainCompare(compare: Compare): object {
  const { buffer, unionField, number } = compare;
  const names = ['version', 'createRevision', 'modRevision'];
  return {
    result: compare.result,
    target: compare.target,
    key: bytesOf(buffer, compare.keyStart, compare.keyEnd),
    rangeEnd: bytesOf(buffer, compare.rangeEndStart, compare.rangeEndEnd),
    ...(unionField >= 4 && unionField <= 6 ? { [names[unionField - 4]!]: number } : {}),
    ...(unionField === 7 ? { value: bytesOf(buffer, compare.valueStart, compare.valueEnd) } : {}),
    ...(unionField === 8 ? { lease: leaseOf(compare) } : {}),
  };
}

function plainOp(op: RequestOp): object {
  if (op instanceof RangeRequest) return { requestRange: plainRange(op) };
  if (op instanceof PutRequest) return { requestPut: plainPut(op) };
  if (op instanceof DeleteRangeRequest) return { requestDeleteRange: plainDelete(op) };
  return op instanceof EmptyOp ? {} : { requestTxn: plainTxn(op) };
}

test('random txns equal what was encoded; cut anywhere nothing is thrown', () => {
  for (let round = 0; round < 300; round++) {
    const init = randomTxn(0);
    const bytes = encode(TxnSchema, init);
    const txn = new TxnRequest();
    assert.ok(txn.parse(...framed(bytes)));
    assert.deepEqual(plainTxn(txn), init);
    for (let cut = 0; round < 30 && cut < bytes.length; cut++) new TxnRequest().parse(bytes, 0, cut);
  }
});

test('of the members of a oneof the last counts', () => {
  const compare = new Compare();
  // version 7, then value "x": the value; a mod_revision as bytes is no member.
  const bytes = Buffer.from([0x20, 7, 0x3a, 1, 0x78, 0x32, 1, 1]);
  assert.ok(compare.parse(bytes, 0, bytes.length, 0));
  assert.equal(compare.unionField, 7);
  const reversed = Buffer.from([0x3a, 1, 0x78, 0x20, 7]);
  const other = new Compare();
  assert.ok(other.parse(reversed, 0, reversed.length, 0));
  assert.deepEqual([other.unionField, other.number], [4, 7]);

  const put = [0x12, 3, 0x0a, 1, 0x61];
  const range = [0x0a, 3, 0x0a, 1, 0x62];
  assert.ok(parseOp([...put, ...range]) instanceof RangeRequest);
  assert.ok(parseOp([...range, ...put, ...range, ...put]) instanceof PutRequest);
  assert.ok(parseOp([]) instanceof EmptyOp);
  assert.ok(parseOp([0x2a, 1, 1, 0x08, 1]) instanceof EmptyOp);
});

test('the same member of a RequestOp twice is refused: protobuf merges it, we would not', () => {
  const put = [0x12, 3, 0x0a, 1, 0x61];
  assert.equal(parseOp([...put, ...put]), undefined);
  assert.equal(parseOp([0x22, 0, 0x22, 0]), undefined);
});

function parseOp(op: number[]): RequestOp | undefined {
  const bytes = Buffer.from([0x12, op.length, ...op]);
  const txn = new TxnRequest();
  return txn.parse(bytes, 0, bytes.length) ? txn.success[0] : undefined;
}

/** A txn in a txn in …: so many, around `inner`. */
function nested(depth: number, inner: Buffer = Buffer.alloc(0)): Buffer {
  let bytes = inner;
  for (let i = 1; i < depth; i++) bytes = wrap(wrap(bytes, 0x22), 0x12);
  return bytes;
}

test('txns nest as deep as --max-txn-ops allows', () => {
  for (const depth of [1, 50, 129, 200, 301]) {
    const bytes = nested(depth);
    const txn = new TxnRequest();
    assert.ok(txn.parse(bytes, 0, bytes.length), `depth ${depth}`);
    let levels = 1;
    for (let inner = txn.success[0]; inner instanceof TxnRequest; inner = inner.success[0]) levels++;
    assert.equal(levels, depth);
  }
});

test('deeper ones are looked through, to where Go stops, and known to be too deep: the checks refuse them', () => {
  const isTooDeep = (bytes: Buffer): boolean | undefined => {
    const txn = new TxnRequest();
    if (!txn.parse(bytes, 0, bytes.length)) return undefined;
    let deepest = txn;
    for (let inner = txn.success[0]; inner instanceof TxnRequest; inner = inner.success[0]) deepest = inner;
    assert.deepEqual([deepest.compare, deepest.success, deepest.failure], [[], [], []]);
    return deepest.isTooDeep;
  };
  assert.equal(isTooDeep(nested(301)), false);
  for (const depth of [302, 1000, 5000]) assert.equal(isTooDeep(nested(depth)), true, `depth ${depth}`);
  for (const depth of [5001, 20_000]) assert.equal(isTooDeep(nested(depth)), undefined, `depth ${depth}`);
  const compare = [0x0a, 3, 0x1a, 1, 0x6b];
  const put = [0x12, 3, 0x0a, 1, 0x6b];
  const range = [0x0a, 3, 0x0a, 1, 0x6b];
  const good = [
    [...compare, 0x12, 5, ...put],
    [0x1a, 10, ...put, ...range],
    [0x12, 0, 0x1a, 0],
    [0x7b, 0x7c, 0x38, 1],
  ];
  for (const inner of good) assert.equal(isTooDeep(nested(1000, Buffer.from(inner))), true, `${inner}`);
  const bad = [
    [0x0a, 5],
    [0x0a, 1, 0x08],
    [0x12, 2, 0x12, 1],
    [0x12, 3, 0x12, 1, 0x0a],
    [0x7b],
    [0x12, 1, 0x7c],
    [0x00],
  ];
  for (const inner of bad) assert.equal(isTooDeep(nested(1000, Buffer.from(inner))), undefined, `${inner}`);
  // As in a txn that is not as deep: the same member twice.
  assert.equal(isTooDeep(nested(1000, Buffer.from([0x12, 10, ...put, ...put]))), undefined);
  // What follows the deep one is read on in its own place.
  const after = Buffer.concat([nested(1000), Buffer.from([0x1a, 5, ...put])]);
  const txn = new TxnRequest();
  assert.ok(txn.parse(after, 0, after.length));
  assert.ok(txn.failure[0] instanceof PutRequest);
});

function wrap(bytes: Buffer, tag: number): Buffer {
  const head: number[] = [tag];
  let rest = bytes.length;
  for (; rest >= 128; rest >>= 7) head.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...head, rest]), bytes]);
}
