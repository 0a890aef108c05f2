// Goal: a Txn that only reads, read in slices over turns in which everything changes, answers byte for byte what the same Txn answers in
// one turn, fails as it, counts as it, and lets go of what it pinned; no turn does much more than a slice. Method: random stores and
// Txns (every option of a range, old, negative and future revisions, small bounds); the same request as a log entry, which is read
// in one turn, and sliced, with puts, deletes, compactions, flushes and restarts of the counts between the slices. Then rules by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import type { ReadSlice } from '../limits.ts';
import { randomEnd, randomKey } from '../mvcc/store-fixture.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { TxnRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { DeleteMessage, decodeTxnAnswer, encodeTxn, type OpInit, type TxnInit } from '../testing/kv-messages.ts';
import { type Applied, ApplyBench, plainAnswer } from './apply-fixture.ts';
import { isPaged } from './txn.ts';
import { TxnRead } from './txn-read.ts';

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)]!;
}

function randomRange(random: Random, newest: number): OpInit {
  const key = random.below(3) === 0 ? '\0' : randomKey(random);
  const bound = (): number => (random.below(8) === 0 ? 1 + random.below(newest + 1) : 0);
  const old = newest - random.below(8) + (random.below(60) === 0 ? 9 : 0);
  return {
    range: {
      key: latin1(key),
      rangeEnd: latin1(random.below(3) > 0 ? '\0' : randomEnd(random, key)),
      limit: pick(random, [0, 0, 0, 1, 2, 5, 9, -1]),
      revision: random.below(3) > 0 ? 0 : old,
      sortOrder: random.below(3),
      sortTarget: random.below(2) === 0 ? 0 : random.below(5),
      keysOnly: random.below(4) === 0,
      countOnly: random.below(5) === 0,
      minModRevision: bound(),
      maxModRevision: bound(),
      minCreateRevision: bound(),
      maxCreateRevision: bound(),
    },
  };
}

function randomTxn(random: Random, newest: number): TxnInit {
  const list = <T>(countMax: number, make: () => T): T[] => Array.from({ length: random.below(countMax + 1) }, make);
  const ranges = (): OpInit[] => list(6, () => randomRange(random, newest));
  const compare = list(1, () => {
    const key = latin1(randomKey(random));
    return { key, target: 0, result: random.below(4), version: random.below(2) };
  });
  return { compare, success: ranges(), failure: ranges() };
}

function change(bench: ApplyBench, random: Random): void {
  const success: OpInit[] = [];
  for (let ops = random.below(5); ops > 0; ops--) {
    const key = latin1(randomKey(random));
    if (random.below(3) > 0)
      success.push({ put: { key, value: latin1(`v${random.below(10)}`.repeat(random.below(9))) } });
    else success.push({ delete: { key } });
  }
  if (success.length > 0) bench.apply(RequestField.txn, encodeTxn({ success }));
  const revision = bench.store.currentRevision;
  if (random.below(8) === 0) {
    bench.apply(RequestField.compaction, encode(CompactionRequest, { revision: revision - random.below(4) }));
  }
  if (random.below(5) === 0) bench.storage.flush();
  if (random.below(6) === 0) bench.storage.index.countFloor = revision - random.below(3);
}

/** A sliced Txn under way. */
class Running {
  readonly error: EtcdError | null;
  readonly read: TxnRead | null;
  readonly out: ByteWriter;
  private readonly parts: Buffer[] = [];

  constructor(bench: ApplyBench, message: Buffer, slice: ReadSlice, answerBytesMax: number) {
    // It lies in a connection's buffer.
    const buffer = Buffer.from(message);
    const request = new TxnRequest();
    assert.ok(request.parse(buffer, 0, buffer.length));
    this.out = new ByteWriter(16, answerBytesMax);
    const read = bench.applier.readTxn(request, this.out, slice);
    buffer.fill(0xdd);
    this.read = read instanceof TxnRead ? read : null;
    this.error = read instanceof TxnRead ? null : read;
    this.keep();
  }

  private keep(): void {
    this.parts.push(Buffer.from(this.out.bytes.subarray(0, this.out.length)));
    this.out.length = 0;
  }

  /** One slice; true: that was the last. */
  step(): boolean {
    if (this.read === null) return true;
    const done = this.read.step(this.out);
    this.keep();
    return done;
  }

  get answer(): Buffer {
    return Buffer.concat(this.parts);
  }
}

interface Compared {
  readonly running: Running;
  readonly expected: Applied & { readonly full: boolean };
  readonly txn: TxnInit;
}

function check({ running, expected, txn }: Compared, bytesMax: number): void {
  if (running.error !== expected.error) assert.fail(`${running.error?.message}: ${JSON.stringify(txn)}`);
  if (expected.error !== null) return;
  const { read, out, answer } = running;
  // A row's tag and the lengths that are not known yet are counted a little differently where a slice ends.
  const isNear = Math.abs(expected.body.length - bytesMax) < 40;
  if (out.full !== expected.full)
    assert.ok(isNear, `${out.full ? 'no' : 'some'} room for ${expected.body.length} bytes`);
  if (out.full || expected.full) return;
  if (!answer.equals(expected.body)) {
    assert.fail(`${answer.toString('hex')} instead of ${expected.body.toString('hex')} for ${JSON.stringify(txn)}`);
  }
  if (read !== null) assert.equal(read.headerRevision, expected.revision);
}

function compare(bench: ApplyBench, random: Random, slice: ReadSlice, bytesMax: number): Compared {
  const txn = randomTxn(random, bench.store.currentRevision);
  const message = encodeTxn(txn);
  const inOneTurn = (): Compared['expected'] => {
    const applied = bench.apply(RequestField.txn, message);
    return { ...applied, full: bench.applier.body.full };
  };
  const { counters } = bench.store;
  // What one counts the slow way it remembers for the other: each is now and then the first.
  const first = random.below(2) === 0 ? inOneTurn() : null;
  const before = counters.range;
  const running = new Running(bench, message, slice, bytesMax);
  const between = counters.range;
  const expected = first ?? inOneTurn();
  if (first === null) assert.equal(counters.range - between, between - before, 'ranges are counted differently');
  return { running, expected, txn };
}

test('sliced, a Txn answers the bytes of the same Txn in one turn, whatever happens between its slices', () => {
  const seen = { sliced: 0, whole: 0, failed: 0, full: 0, slices: 0, dropped: 0 };
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const bytesMax = seed % 3 === 0 ? 50 + random.below(900) : 1e9;
    const bench = new ApplyBench(Infinity, bytesMax);
    let open: Compared[] = [];
    try {
      for (let step = 0; step < 60; step++) {
        change(bench, random);
        const slice = { keys: 1 + random.below(6), bytes: 1 + random.below(120), countKeys: 1 + random.below(4) };
        open.push(compare(bench, random, slice, bytesMax));
        const { running } = open.at(-1)!;
        if (running.error !== null) seen.failed++;
        else if (running.read === null) seen.whole++;
        else seen.sliced++;
        open = open.filter((each) => {
          if (random.below(40) === 0) {
            each.running.read?.close();
            seen.dropped++;
            return false;
          }
          if (random.below(3) === 0) return true;
          seen.slices++;
          if (!each.running.step()) return true;
          if (each.running.out.full) seen.full++;
          check(each, bytesMax);
          return false;
        });
      }
      for (const each of open) {
        while (!each.running.step());
        check(each, bytesMax);
      }
      assert.equal(bench.storage.pinned, 0, 'a revision stays pinned');
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  const { sliced, whole, failed, full, slices, dropped } = seen;
  assert.ok(sliced > 1200 && whole > 200 && failed > 40 && full > 80, JSON.stringify(seen));
  assert.ok(slices > 3 * sliced && dropped > 40, JSON.stringify(seen));
});

const SLICE: ReadSlice = { keys: 50, bytes: 4000, countKeys: 50 };
const ALL = { key: latin1('k'), rangeEnd: latin1('l') };

function filled(count: number, answerBytesMax?: number): ApplyBench {
  const bench = new ApplyBench(Infinity, answerBytesMax);
  const success: OpInit[] = [];
  for (let i = 0; i < count; i++) success.push({ put: { key: latin1(`k${10_000 + i}`), value: latin1(`v${i}`) } });
  bench.apply(RequestField.txn, encodeTxn({ success }));
  return bench;
}

/** How many rows a turn reads. */
function rowsOf(bench: ApplyBench, turn: () => void): number {
  const { storage } = bench;
  const { readRow } = storage;
  let rows = 0;
  storage.readRow = (main, sub, ordinal, out) => {
    rows++;
    return readRow.call(storage, main, sub, ordinal, out);
  };
  turn();
  storage.readRow = readRow;
  return rows;
}

test('a turn reads a slice and the rest of another at most, and appends as much; the whole is exact', () => {
  const bench = filled(700);
  const sorted = { ...ALL, sortTarget: 4, sortOrder: 2 };
  const key = { key: latin1('k10005') };
  const success = [ALL, key, sorted, key, { ...ALL, limit: 30 }, { ...ALL, limit: 30 }, ALL].map((range) => ({
    range,
  }));
  const message = encodeTxn({ success });
  const expected = bench.apply(RequestField.txn, message).body;
  let running: Running | undefined;
  const first = rowsOf(bench, () => {
    running = new Running(bench, message, SLICE, 1e9);
  });
  assert.ok(first <= 2 * SLICE.keys, `${first} rows in the first turn`);
  const { read } = running!;
  assert.ok(read !== null);
  let turns = 0;
  let heldMax = 0;
  for (let done = false; !done; turns++) {
    const answered = running!.answer.length;
    const rows = rowsOf(bench, () => {
      done = running!.step();
    });
    assert.ok(rows <= 2 * SLICE.keys, `${rows} rows in a turn`);
    const bytes = running!.answer.length - answered;
    assert.ok(bytes <= 4 * SLICE.bytes, `${bytes} bytes in a turn`);
    heldMax = Math.max(heldMax, read.heldBytes);
  }
  assert.ok(turns >= (3 * 700) / SLICE.keys, `${turns} turns`);
  assert.deepEqual(running!.answer, expected);
  // A range at a time: with its rows for sorting, and the memory of a slice.
  assert.ok(heldMax > 700 * 20 && heldMax < 700 * 250, `${heldMax} bytes were held`);
  assert.deepEqual([read.answered.reduce((sum, count) => sum + count, 0), bench.storage.pinned], [3 * 700 + 62, 0]);
});

test('many large values of single keys, and many counts, are more than a slice too', () => {
  const bench = filled(200);
  const value = latin1('x'.repeat(3000));
  for (let i = 0; i < 9; i++)
    bench.apply(RequestField.txn, encodeTxn({ success: [{ put: { key: latin1(`x${i}`), value } }] }));
  const keys = Array.from({ length: 9 }, (_, i): OpInit => ({ range: { key: latin1(`x${i}`) } }));
  const counts = Array.from({ length: 20 }, (): OpInit => ({ range: { ...ALL, countOnly: true } }));
  for (const success of [keys, counts]) {
    const message = encodeTxn({ success });
    const running = new Running(bench, message, SLICE, 1e9);
    assert.ok(running.read !== null && running.answer.length <= 2 * SLICE.bytes);
    while (!running.step());
    assert.deepEqual(running.answer, bench.apply(RequestField.txn, message).body);
  }
});

test('the ranges that begin in later turns answer as of the first, which a compaction does not touch', () => {
  const bench = filled(120);
  const success = [{ range: ALL }, { range: ALL }, { range: { key: latin1('k10000') } }];
  const message = encodeTxn({ success });
  const expected = bench.apply(RequestField.txn, message);
  const running = new Running(bench, message, SLICE, 1e9);
  bench.apply(RequestField.deleteRange, encode(DeleteMessage, ALL));
  bench.apply(RequestField.compaction, encode(CompactionRequest, { revision: bench.store.currentRevision }));
  while (!running.step());
  assert.deepEqual(running.answer, expected.body);
  const answer = plainAnswer(decodeTxnAnswer(running.answer)!);
  assert.deepEqual((answer.responses[2] as { range: { revision: number } }).range.revision, expected.revision);
  assert.equal(bench.storage.pinned, 0);
});

test('a Txn that cannot answer many keys in either branch is paged', () => {
  const paged = (txn: TxnInit): boolean => {
    const bytes = encodeTxn(txn);
    const request = new TxnRequest();
    assert.ok(request.parse(bytes, 0, bytes.length));
    return isPaged(request, 10);
  };
  const key: OpInit = { range: { key: latin1('k') } };
  const page = (limit: number): OpInit => ({ range: { ...ALL, limit } });
  assert.ok(paged({}));
  assert.ok(paged({ success: [key, page(9)], failure: [page(5), page(5)] }));
  for (const ops of [[page(0)], [page(-1)], [page(11)], [page(5), page(6)], [key, page(10)]]) {
    assert.ok(!paged({ success: ops }) && !paged({ failure: ops }));
  }
});
