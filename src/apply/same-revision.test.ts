// Goal: a key that a Txn deletes and puts again, or puts and deletes, in one revision (by inner Txns, or behind a delete to the last key)
// is found, hashed and compacted as its history says, at that revision and around it. Method: random Txns of that kind over the real
// engine, its tables in memory and its limits shrunk, with flushes, merges, compactions at and beside such revisions, and restarts;
// after each, ranges at every revision against whole copies of the states (mvcc/store-fixture.ts), HashKV at every revision and the
// rows that are left against the engine's model, which gets the same changes one by one. etcd loses such a key when the compaction is
// at its revision (docs/differences.md); the rest is held against it in same-revision.peer-test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { decodeRange, History, randomEnd, requestOf } from '../mvcc/store-fixture.ts';
import { checkAgainst, Model } from '../testing/backend-model.ts';
import { EngineBench, tinyIndexLimits, tinyLimits } from '../testing/engine-bench.ts';
import type { OpInit, TxnInit } from '../testing/kv-messages.ts';
import { TxnModel } from './apply-fixture.ts';

const KEYS = ['a', 'b', 'c', 'd'];
const bytesOf = (text: string): Buffer => Buffer.from(text, 'latin1');

function randomOp(random: Random): OpInit {
  const key = KEYS[random.below(KEYS.length)]!;
  if (random.below(2) === 0) return { put: { key: bytesOf(key), value: bytesOf(`v${random.below(100)}`) } };
  return { delete: { key: bytesOf(key), rangeEnd: bytesOf(random.below(2) === 0 ? '' : randomEnd(random, key)) } };
}

/** Siblings that undo each other. Not through txn-overlaps.ts, which refuses most of them. */
function randomTxn(random: Random, depth = 0): TxnInit {
  const success: OpInit[] = [];
  for (let count = 1 + random.below(3); count > 0; count--) {
    success.push(depth < 2 && random.below(3) === 0 ? { txn: randomTxn(random, depth + 1) } : randomOp(random));
  }
  return { success };
}

class Run {
  readonly random: SeededRandom;
  readonly history: History = new History();
  readonly model: Model = new Model();
  /** Revisions in which a key was deleted and put again. */
  readonly remade: Set<number> = new Set();
  engine: EngineBench = new EngineBench(tinyLimits, tinyIndexLimits);
  private readonly oracle: TxnModel = new TxnModel(this.history, () => true);

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  change(): void {
    const txn = randomTxn(this.random);
    assert.ok(!('code' in (this.oracle.run(txn) ?? { code: 0 })), 'the oracle refuses a Txn');
    this.engine.txn(txn);
    // The model of the engine gets what the store has made of it, a row a change.
    const changes: { key: string; value: string | null }[] = [];
    const { revision } = this.history;
    this.engine.backend.scanRows(this.model.revision + 1, revision, (_main, _sub, tombstone, buffer, start, end) => {
      const kv = decodeRange(Buffer.concat([Buffer.from([0x12, end - start]), buffer.subarray(start, end)]), 0).kvs[0]!;
      if (!tombstone && changes.some((change) => change.key === kv.key && change.value === null)) {
        this.remade.add(revision);
      }
      changes.push({ key: kv.key, value: tombstone ? null : kv.value });
      return true;
    });
    this.model.apply({ kind: 'txn', changes });
    assert.equal(this.model.revision, revision);
  }

  compact(): void {
    const { random, history, model, engine } = this;
    // Nothing is stored of revision 1: the server does not ask the engine to compact it.
    const from = Math.max(2, history.compactRevision + 1);
    if (from > history.revision) return;
    const near = [...this.remade].filter((revision) => revision >= from);
    let at = from + random.below(history.revision - from + 1);
    if (near.length > 0 && random.below(4) > 0) at = near[random.below(near.length)]! + random.below(3) - 1;
    if (at < from || at > history.revision) return;
    engine.compact(at);
    model.apply({ kind: 'compact', revision: at });
    history.compactRevision = at;
  }

  check(): void {
    const { engine, history, model } = this;
    for (let revision = Math.max(1, history.compactRevision); revision <= history.revision; revision++) {
      for (const options of [
        { key: '\0', end: '\0', revision },
        { key: 'b', revision },
        { key: 'b', end: 'd', revision, countOnly: true },
        { key: 'a', end: 'z', revision, limit: 2, sortOrder: 2 },
      ]) {
        const out = new ByteWriter(64);
        assert.equal(engine.store.range(requestOf(options), out), null);
        const result = decodeRange(out.bytes.subarray(0, out.length), engine.store.rangeRevision);
        assert.deepEqual(result, history.range(options), JSON.stringify(options));
      }
      assert.equal(
        engine.hashKv(revision),
        model.hashKv(revision, engine.store.compactRevision),
        `hash at ${revision}`,
      );
    }
    checkAgainst(engine.backend, model, true);
  }

  step(): void {
    const { random, engine } = this;
    const kind = random.below(20);
    if (kind < 12) this.change();
    else if (kind < 14) this.compact();
    else if (kind < 18) for (let steps = random.below(10); steps > 0; steps--) engine.port.step();
    else if (kind < 19) this.check();
    else this.engine = engine.restart();
  }
}

test('a key changed several times in one revision, compacted at it and around it', () => {
  let compactedAt = 0;
  for (let seed = 1; seed <= 8; seed++) {
    const run = new Run(seed);
    try {
      for (let step = 0; step < 150; step++) {
        run.step();
        if (run.remade.has(run.history.compactRevision)) compactedAt++;
      }
      run.check();
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(compactedAt > 100, `only ${compactedAt} steps stood at such a compaction`);
});
