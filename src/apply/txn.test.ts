// Goal: a Txn compares, checks, executes and answers as etcd's. Method: random Txns (all targets and results, ranges in compares,
// nesting, every option of every operation, failing checks) applied as log entries and, when they only read, outside of it too;
// each answer taken apart by schema and compared whole with a second implementation (apply-fixture.ts). Then rules by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { History, type Kv, randomEnd, randomKey } from '../mvcc/store-fixture.ts';
import { LeaseGrantRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { decodeTxnAnswer, encodeTxn, type OpInit, RangeMessage, type TxnInit } from '../testing/kv-messages.ts';
import { ApplyBench, type PlainAnswer, plainAnswer, TxnModel } from './apply-fixture.ts';
import { isReadOnly, isSerializable } from './txn.ts';
import { TxnRead } from './txn-read.ts';

const LEASES = [1n, 2n, -1n];
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)]!;
}

class Generator {
  private readonly random: SeededRandom;
  private readonly history: History;
  constructor(random: SeededRandom, history: History) {
    this.random = random;
    this.history = history;
  }

  private key(): string {
    const state = [...this.history.states.at(-1)!.keys()];
    return state.length > 0 && this.random.below(2) === 0 ? pick(this.random, state) : randomKey(this.random);
  }

  private range(): { key: Buffer; rangeEnd: Buffer } {
    const key = this.key();
    return { key: latin1(key), rangeEnd: latin1(this.random.below(2) === 0 ? '' : randomEnd(this.random, key)) };
  }

  private compare(): NonNullable<TxnInit['compare']>[number] {
    const { random } = this;
    const range = this.range();
    const kv: Kv | undefined = this.history.states.at(-1)!.get(range.key.toString('latin1'));
    const near = (value: number): number => value + pick(random, [0, 0, 0, 1, -1]);
    const target = random.below(5);
    // Now and then a member that does not belong to the target: it counts as zero.
    const member = random.below(8) === 0 ? random.below(6) : target;
    return {
      ...range,
      result: random.below(4),
      target,
      ...(member === 0 ? { version: near(kv?.version ?? 0) } : {}),
      ...(member === 1 ? { createRevision: near(kv?.create ?? 0) } : {}),
      ...(member === 2 ? { modRevision: near(kv?.mod ?? 0) } : {}),
      ...(member === 3 ? { value: latin1(pick(random, [kv?.value ?? '', '', 'v5'])) } : {}),
      ...(member === 4 ? { lease: pick(random, [kv?.lease ?? 0n, 1n, -1n, 1n << 40n, -(1n << 40n)]) } : {}),
    };
  }

  private op(depth: number): OpInit {
    const { random } = this;
    const kind = random.below(depth > 2 ? 3 : 4);
    if (kind === 0) return { range: this.rangeOp() };
    if (kind === 1) return { put: this.putOp() };
    if (kind === 2) return { delete: { ...this.range(), prevKv: random.below(2) === 0 } };
    return { txn: this.txn(depth + 1) };
  }

  private rangeOp(): NonNullable<OpInit['range']> {
    const { random, history } = this;
    return {
      ...this.range(),
      limit: pick(random, [0, 0, 1, 2, -1]),
      revision: random.below(3) > 0 ? 0 : history.revision - random.below(5) + (random.below(40) === 0 ? 6 : 0),
      sortOrder: random.below(3),
      sortTarget: random.below(5),
      keysOnly: random.below(4) === 0,
      countOnly: random.below(6) === 0,
      minModRevision: random.below(6) === 0 ? random.below(history.revision + 1) : 0,
    };
  }

  private putOp(): NonNullable<OpInit['put']> {
    const { random } = this;
    const flag = (): boolean => random.below(8) === 0;
    const lease = random.below(40) === 0 ? 77n : pick(random, [0n, 0n, ...LEASES]);
    const value = latin1(`v${random.below(10)}`);
    return {
      key: latin1(this.key()),
      value: random.below(5) === 0 ? latin1('') : value,
      lease,
      prevKv: random.below(2) === 0,
      ignoreValue: flag(),
      ignoreLease: flag(),
    };
  }

  txn(depth = 0): TxnInit {
    const { random } = this;
    const list = <T>(countMax: number, make: () => T): T[] => Array.from({ length: random.below(countMax + 1) }, make);
    return {
      compare: list(2, () => this.compare()),
      success: list(4, () => this.op(depth)),
      failure: list(4, () => this.op(depth)),
    };
  }
}

function openWithLeases(answerBytesMax?: number): ApplyBench {
  const bench = new ApplyBench(Infinity, answerBytesMax);
  for (const id of LEASES) bench.apply(RequestField.leaseGrant, encode(LeaseGrantRequest, { id, ttl: 60n }));
  return bench;
}

function runReadOnly(bench: ApplyBench, txn: TxnInit): PlainAnswer | { readonly code: number } {
  const bytes = encodeTxn(txn);
  const request = new TxnRequest();
  assert.ok(request.parse(bytes, 0, bytes.length));
  const out = new ByteWriter(16);
  const read = bench.applier.readTxn(request, out, { keys: 2, bytes: 50, countKeys: 2 });
  if (read instanceof TxnRead) while (!read.step(out));
  else if (read !== null) return read;
  return plainAnswer(decodeTxnAnswer(out.bytes.subarray(0, out.length))!);
}

/** Each lease's keys are those of the live keys that name it. */
function checkLeases(bench: ApplyBench, history: History): void {
  for (const id of LEASES) {
    const expected = [...history.states.at(-1)!.values()].filter((kv) => kv.lease === id).map((kv) => kv.key);
    assert.deepEqual([...bench.lessor.lookup(id)!.keys].sort(), expected.sort());
  }
}

test('random txns answer, change and fail as etcd would', () => {
  const seen = { answered: 0, failed: 0, readOnly: 0 };
  for (let seed = 1; seed <= 80; seed++) {
    const random = new SeededRandom(seed);
    const bench = openWithLeases();
    const history = new History();
    const model = new TxnModel(history, (id) => LEASES.includes(id));
    const generator = new Generator(random, history);
    try {
      for (let step = 0; step < 60; step++) {
        const txn = generator.txn();
        const bytes = encodeTxn(txn);
        const request = new TxnRequest();
        assert.ok(request.parse(bytes, 0, bytes.length));
        const expected = model.run(txn);
        if (expected === null) continue;
        if (isReadOnly(request)) {
          assert.deepEqual(runReadOnly(bench, txn), expected);
          seen.readOnly++;
        }
        const { error, revision, body } = bench.apply(RequestField.txn, bytes);
        assert.equal(revision, history.revision);
        assert.equal(bench.store.currentRevision, history.revision);
        if ('code' in expected) {
          assert.equal(error, expected);
          seen.failed++;
        } else {
          assert.equal(error, null);
          assert.deepEqual(plainAnswer(decodeTxnAnswer(body)!), expected);
          seen.answered++;
        }
        checkLeases(bench, history);
        if (random.below(10) === 0) bench.storage.flush();
        if (random.below(25) === 0 && bench.store.compact(history.revision - 2) === null) {
          bench.storage.compact(history.revision - 2);
          history.compactRevision = history.revision - 2;
        }
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(seen.answered > 2000 && seen.failed > 300 && seen.readOnly > 100, JSON.stringify(seen));
});

test('what a txn does is the same whether its answer is wanted or not, and has room or not', () => {
  let full = 0;
  for (let seed = 1; seed <= 30; seed++) {
    const random = new SeededRandom(seed);
    const bound = random.below(120);
    const bench = openWithLeases();
    const bounded = openWithLeases(bound);
    const unheard = openWithLeases();
    const history = new History();
    const model = new TxnModel(history, (id) => LEASES.includes(id));
    const generator = new Generator(random, history);
    try {
      for (let step = 0; step < 60; step++) {
        const txn = generator.txn();
        if (model.run(txn) === null) continue;
        const bytes = encodeTxn(txn);
        const applied = bench.apply(RequestField.txn, bytes);
        const short = bounded.apply(RequestField.txn, bytes);
        const silent = unheard.apply(RequestField.txn, bytes, false);
        assert.ok(!bench.applier.body.full && unheard.applier.body.full);
        assert.deepEqual([short.error, silent.error], [applied.error, applied.error]);
        if (bounded.applier.body.full) {
          full++;
          // A length takes five bytes until it is known, and what is sorted is held with its value.
          assert.ok(applied.body.length > bound - 60, 'an answer that has room is given up');
          // Headers, counts and lengths are written all the same: some bytes an operation.
          assert.ok(short.body.length < bound + 2000 && silent.body.length < 2000);
        } else assert.deepEqual(short.body, applied.body);
      }
      assert.deepEqual(bounded.dump(), bench.dump());
      assert.deepEqual(unheard.dump(), bench.dump());
      assert.equal(bench.store.currentRevision, history.revision);
    } catch (error) {
      throw new Error(`seed ${seed}, bound ${bound}`, { cause: error });
    }
  }
  assert.ok(full > 200, `only ${full} answers were too large`);
});

test('a txn of many ranges over large values: the answer stops at its bound, the put behind them is done', () => {
  const bench = new ApplyBench(Infinity, 1_000_000);
  for (const key of ['a', 'b', 'c', 'd']) answerOf(bench, { success: [put(key, 'x'.repeat(90_000))] });
  const range = { range: { key: latin1('a'), rangeEnd: latin1('z') } };
  const success = [...Array.from({ length: 120 }, () => range), put('written', 'yes', { prevKv: true })];
  const { error, revision, body } = bench.apply(RequestField.txn, encodeTxn({ success }));
  assert.deepEqual([error, revision, bench.applier.body.full], [null, 6, true]);
  assert.ok(body.length < 1_010_000, `${body.length} bytes`);
  assert.equal(bench.applier.body.bytesMax, 1_000_000);
  // The next answer is whole again.
  const answer = answerOf(bench, { success: [{ range: { key: latin1('written') } }] });
  assert.equal((answer.responses[0] as { range: { count: number } }).range.count, 1);
  const deleted = bench.apply(RequestField.txn, encodeTxn({ success: [{ delete: { ...range.range, prevKv: true } }] }));
  assert.ok(!bench.applier.body.full, 'half of the bound');
  assert.equal(plainAnswer(decodeTxnAnswer(deleted.body)!).responses.length, 1);
});

function put(key: string, value: string, more: Partial<NonNullable<OpInit['put']>> = {}): OpInit {
  return { put: { key: latin1(key), value: latin1(value), ...more } };
}

function answerOf(bench: ApplyBench, txn: TxnInit): PlainAnswer {
  const { error, body } = bench.apply(RequestField.txn, encodeTxn(txn));
  assert.equal(error, null);
  return plainAnswer(decodeTxnAnswer(body)!);
}

test('the bytes of an answer: headers of the revision alone, an empty one for an inner txn, canonical lengths', () => {
  const bench = new ApplyBench();
  const txn: TxnInit = {
    success: [
      { range: { key: latin1('a') } },
      put('a', 'v'),
      { range: { key: latin1('a') } },
      { delete: { key: latin1('x') } },
      { txn: { failure: [put('never', '')] } },
    ],
  };
  const { body } = bench.apply(RequestField.txn, encodeTxn(txn));
  const kv = '0a0161100218022001' + '2a0176';
  const responses = [
    `0a04${'0a021801'}`,
    `1204${'0a021802'}`,
    `0a14${'0a021802'}120c${kv}2001`,
    `1a04${'0a021802'}`,
    `2204${'0a00'}1001`,
  ];
  const encoded = responses.map((hex) => `1a${(hex.length / 2).toString(16).padStart(2, '0')}${hex}`);
  assert.equal(body.toString('hex'), `1001${encoded.join('')}`);
});

test('a missing key compares as zeros, but by value never', () => {
  const bench = new ApplyBench();
  const key = latin1('missing');
  const succeeded = (compare: NonNullable<TxnInit['compare']>[number]): boolean =>
    answerOf(bench, { compare: [compare] }).succeeded;
  for (const target of [0, 1, 2, 4]) {
    assert.equal(succeeded({ key, target, result: 0 }), true);
    assert.equal(succeeded({ key, target, result: 1 }), false);
    assert.equal(succeeded({ key, target, result: 2 }), false);
    assert.equal(succeeded({ key, target, result: 3 }), false);
  }
  assert.equal(succeeded({ key, target: 2, result: 2, modRevision: 5 }), true);
  for (const result of [0, 1, 2, 3]) {
    assert.equal(succeeded({ key, target: 3, result, value: latin1('') }), false);
    assert.equal(succeeded({ key, rangeEnd: latin1('n'), target: 3, result }), false, 'nor does an empty range');
  }
  assert.equal(succeeded({ key, target: 2, result: 9 }), true, 'an unknown result holds, as in etcd');
  assert.equal(succeeded({ key, target: 9, result: 0 }), true, 'an unknown target is equal');
});

test('a range compare holds for every key of the range', () => {
  const bench = new ApplyBench();
  answerOf(bench, { success: [put('a', 'x'), put('b', 'x'), put('c', 'y')] });
  const holds = (end: string): boolean =>
    answerOf(bench, {
      compare: [{ key: latin1('a'), rangeEnd: latin1(end), target: 3, result: 0, value: latin1('x') }],
    }).succeeded;
  assert.deepEqual([holds(''), holds('c'), holds('d'), holds('\0')], [true, true, false, false]);
});

test('lease ids compare as signed numbers', () => {
  const bench = openWithLeases();
  answerOf(bench, { success: [put('a', '', { lease: -1n })] });
  const holds = (result: number, lease: bigint): boolean =>
    answerOf(bench, { compare: [{ key: latin1('a'), target: 4, result, lease }] }).succeeded;
  assert.equal(holds(0, -1n), true);
  assert.equal(holds(2, 0n), true, '-1 is less than 0');
  assert.equal(holds(2, 1n << 62n), true);
  assert.equal(holds(1, -(1n << 63n)), true);
});

test('every check comes before the first write', () => {
  const bench = openWithLeases();
  answerOf(bench, { success: [put('a', '1')] });
  const failing: readonly (readonly [OpInit, object])[] = [
    [put('b', '', { lease: 99n }), etcdErrors.leaseNotFound],
    [put('b', '', { ignoreValue: true }), etcdErrors.keyNotFound],
    [put('b', '', { ignoreLease: true }), etcdErrors.keyNotFound],
    [{ range: { key: latin1('a'), revision: 3 } }, etcdErrors.futureRev],
    [{ txn: { success: [{ txn: { success: [put('b', '', { lease: 99n })] } }] } }, etcdErrors.leaseNotFound],
  ];
  for (const [op, expected] of failing) {
    const { error, revision } = bench.apply(RequestField.txn, encodeTxn({ success: [put('a', '2'), op] }));
    assert.deepEqual([error, revision], [expected, 2]);
  }
  bench.store.compact(2);
  answerOf(bench, { success: [put('a', '3')] });
  const compacted = { success: [put('a', '4'), { range: { key: latin1('a'), revision: 1 } }] };
  assert.equal(bench.apply(RequestField.txn, encodeTxn(compacted)).error, etcdErrors.compacted);
  const negative = { success: [{ range: { key: latin1('a'), revision: -1 } }] };
  assert.equal(
    bench.apply(RequestField.txn, encodeTxn(negative)).error,
    etcdErrors.compacted,
    'unlike in a plain range',
  );
  // What is not chosen is not checked.
  answerOf(bench, { success: [put('a', '5')], failure: [put('b', '', { lease: 99n })] });
});

test('a key may be deleted to the last and put again in one txn', () => {
  const bench = new ApplyBench();
  answerOf(bench, { success: [put('a', '1'), put('b', '1')] });
  const answer = answerOf(bench, {
    success: [{ delete: { key: latin1('a'), rangeEnd: latin1('\0'), prevKv: true } }, put('b', '2', { prevKv: true })],
  });
  assert.deepEqual(answer.responses[1], { put: { revision: 3, prevKv: null } });
  const [range] = answerOf(bench, { success: [{ range: { key: latin1('\0'), rangeEnd: latin1('\0') } }] }).responses;
  const kv = { key: 'b', value: '2', create: 3, mod: 3, version: 1, lease: 0n };
  assert.deepEqual(range, { range: { revision: 3, kvs: [kv], more: false, count: 1 } });
});

test('what only reads, and what does so serializably', () => {
  const parse = (txn: TxnInit): TxnRequest => {
    const bytes = encodeTxn(txn);
    const request = new TxnRequest();
    assert.ok(request.parse(bytes, 0, bytes.length));
    return request;
  };
  const range = (serializable: boolean): OpInit => ({ range: { key: latin1('a'), serializable } });
  const cases: readonly (readonly [TxnInit, boolean, boolean])[] = [
    [{}, true, true],
    [{ success: [range(true)], failure: [range(true)] }, true, true],
    [{ success: [range(true)], failure: [range(false)] }, true, false],
    [{ failure: [put('a', '')] }, false, false],
    [{ success: [{ txn: {} }] }, false, false],
    [{ success: [{ delete: { key: latin1('a') } }] }, false, false],
  ];
  for (const [txn, reads, serializable] of cases) {
    assert.deepEqual([isReadOnly(parse(txn)), isSerializable(parse(txn))], [reads, serializable]);
  }
});

test('counters: compares and previous values are ranges; the compares are a transaction of their own', () => {
  const bench = new ApplyBench();
  const { counters } = bench.store;
  const compare = [{ key: latin1('a'), target: 2 }];
  answerOf(bench, { compare, success: [put('a', '1')] });
  assert.deepEqual({ ...counters }, { put: 1, delete: 0, range: 1, txn: 0, totalPutBytes: 2 });
  answerOf(bench, {
    compare: [...compare, ...compare],
    success: [put('b', '')],
    failure: [put('c', ''), put('d', '')],
  });
  // The first compare fails, so the second is not made; then two puts.
  assert.deepEqual({ ...counters }, { put: 3, delete: 0, range: 2, txn: 1, totalPutBytes: 4 });
  answerOf(bench, {
    success: [put('a', '', { prevKv: true }), { delete: { key: latin1('a'), rangeEnd: latin1('z') } }],
  });
  assert.deepEqual({ ...counters }, { put: 4, delete: 1, range: 4, txn: 2, totalPutBytes: 5 });
  runReadOnly(bench, { success: [{ range: { key: latin1('a') } }, { range: { key: latin1('b') } }] });
  assert.deepEqual([counters.range, counters.txn], [6, 3]);
  runReadOnly(bench, { success: [{ range: { key: latin1('a') } }] });
  assert.deepEqual([counters.range, counters.txn], [7, 3]);
  // A Range before it has no part in it.
  const plain = new RangeRequest();
  const message = encode(RangeMessage, { key: latin1('a') });
  assert.ok(plain.parse(message, 0, message.length));
  assert.equal(bench.store.range(plain, new ByteWriter(16)), null);
  runReadOnly(bench, { success: [{ range: { key: latin1('a') } }] });
  assert.deepEqual([counters.range, counters.txn], [9, 3]);
});
