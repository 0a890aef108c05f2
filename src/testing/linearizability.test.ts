// Goal: the checker accepts what is linearizable and finds what is not. Method: small histories written by hand, good and bad; random
// ones made by a sequential store whose calls overlap, which are good by construction, and the same with one answer made wrong; and
// against an oracle that tries every order of tiny histories.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { checkKv, checkKvByKey, type KvAnswer, type KvCall, KvModel, type KvOperation } from './kv-model.ts';

function op(client: number, startedAt: number, endedAt: number, call: KvCall, answer: KvAnswer | null): KvOperation {
  return { client, startedAt, endedAt, call, answer };
}

const put = (key: string, value: string): KvCall => ({ kind: 'put', key, value });
const get = (key: string): KvCall => ({ kind: 'range', key });
const saw = (value: string | null, revision?: number, mod?: number): KvAnswer => ({
  kvs: value === null ? [] : [{ key: 'k', value, ...(mod === undefined ? {} : { mod }) }],
  ...(revision === undefined ? {} : { revision }),
});

const bothVerdicts = (history: readonly KvOperation[]): string[] => [
  checkKv(history).verdict,
  checkKvByKey(history).verdict,
];

test('reads during a write may see it or not, but not back and forth', () => {
  const write = op(0, 0, 10, put('k', 'a'), {});
  const good = [write, op(1, 1, 2, get('k'), saw(null)), op(1, 3, 4, get('k'), saw('a'))];
  assert.deepEqual(bothVerdicts(good), ['linearizable', 'linearizable']);
  const bad = [write, op(1, 1, 2, get('k'), saw('a')), op(1, 3, 4, get('k'), saw(null))];
  assert.deepEqual(bothVerdicts(bad), ['illegal', 'illegal']);
});

test('a stale read', () => {
  const history = [op(0, 0, 1, put('k', 'a'), {}), op(0, 2, 3, put('k', 'b'), {}), op(1, 4, 5, get('k'), saw('a'))];
  assert.deepEqual(bothVerdicts(history), ['illegal', 'illegal']);
  assert.equal(checkKv(history).stuckAt, 2);
});

test('a lost update: two compare-and-swaps from the same value succeed', () => {
  const cas = (value: string): KvCall => ({ kind: 'cas', key: 'k', expected: 'a', value });
  const history = [
    op(0, 0, 1, put('k', 'a'), {}),
    op(0, 2, 9, cas('b'), { succeeded: true }),
    op(1, 2, 9, cas('c'), { succeeded: true }),
  ];
  assert.deepEqual(bothVerdicts(history), ['illegal', 'illegal']);
  history[2] = op(1, 2, 9, cas('c'), { succeeded: false, kvs: [{ key: 'k', value: 'b' }] });
  assert.deepEqual(bothVerdicts(history), ['linearizable', 'linearizable']);
});

test('a call that timed out may take effect late, once, or never', () => {
  const late = op(0, 0, 1, put('k', 'a'), null);
  const before = op(1, 2, 3, get('k'), saw(null));
  assert.deepEqual(bothVerdicts([late, before]), ['linearizable', 'linearizable']);
  const after = [late, before, op(1, 4, 5, get('k'), saw('a'))];
  assert.deepEqual(bothVerdicts(after), ['linearizable', 'linearizable']);
  // Twice: what was written over it must not come back.
  const twice = [...after, op(1, 6, 7, put('k', 'b'), {}), op(1, 8, 9, get('k'), saw('a'))];
  assert.deepEqual(bothVerdicts(twice), ['illegal', 'illegal']);
  // Not before it was called.
  const early = [op(1, 0, 1, get('k'), saw('a')), op(0, 2, 3, put('k', 'a'), null)];
  assert.deepEqual(bothVerdicts(early), ['illegal', 'illegal']);
});

test('revisions: of a double apply, of one that goes back, of a read between two writes', () => {
  const first = op(0, 0, 1, put('k', 'a'), { revision: 2 });
  assert.equal(checkKv([first, op(0, 2, 3, put('k', 'b'), { revision: 4 })]).verdict, 'illegal');
  assert.equal(checkKv([first, op(0, 2, 3, put('k', 'b'), { revision: 3 })]).verdict, 'linearizable');
  assert.equal(checkKv([first, op(1, 2, 3, get('k'), saw('a', 1, 2))]).verdict, 'illegal');
  assert.equal(checkKv([first, op(1, 2, 3, get('k'), saw('a', 2, 2))]).verdict, 'linearizable');
  assert.equal(checkKv([first, op(1, 2, 3, get('k'), saw('a', 2, 3))]).verdict, 'illegal');
  // A gap is fine when somebody's unknown write fills it.
  const unknown = op(2, 0, 9, put('k', 'x'), null);
  assert.equal(checkKv([first, unknown, op(0, 2, 3, put('k', 'b'), { revision: 4 })]).verdict, 'linearizable');
});

test('a read of the past', () => {
  const history = (value: string): KvOperation[] => [
    op(0, 0, 1, put('k', 'a'), { revision: 2 }),
    op(0, 2, 3, put('k', 'b'), { revision: 3 }),
    op(1, 4, 5, { kind: 'range', key: 'k', revision: 2 }, saw(value, 3)),
  ];
  assert.equal(checkKv(history('a')).verdict, 'linearizable');
  assert.equal(checkKv(history('b')).verdict, 'illegal');
});

test('deletes, ranges and the end of a lease', () => {
  const lease: KvCall = { kind: 'put', key: 'k', value: 'a', lease: 7n };
  const range: KvCall = { kind: 'range', key: 'k', end: '\0' };
  const revoked = op(9, 0, 9, { kind: 'revoke', lease: 7n }, null);
  const both = {
    revision: 3,
    kvs: [
      { key: 'k', value: 'a' },
      { key: 'l', value: 'b' },
    ],
  };
  const history = [
    op(0, 0, 1, lease, { revision: 2 }),
    op(0, 2, 3, put('l', 'b'), { revision: 3 }),
    op(1, 4, 5, range, both),
    revoked,
    op(1, 6, 7, range, { revision: 4, kvs: [{ key: 'l', value: 'b' }] }),
    op(0, 8, 9, { kind: 'delete', key: 'a', end: 'z' }, { revision: 5, deleted: 1 }),
  ];
  assert.equal(checkKv(history).verdict, 'linearizable');
  assert.equal(checkKv(history.filter((one) => one !== revoked)).verdict, 'illegal');
});

interface HistoryShape {
  readonly count: number;
  readonly clients: number;
  readonly keyCount: number;
  readonly revisions: boolean;
  /** One in so many answers is lost; 0: none. */
  readonly unknownIn: number;
}

/** A history of overlapping calls that a sequential store has answered, so a linearizable one. */
function goodHistory(random: Random, shape: HistoryShape): KvOperation[] {
  const { count, clients, keyCount, revisions, unknownIn } = shape;
  const store = new Map<string, { value: string; mod: number }>();
  const freeAt = Array.from({ length: clients }, () => 0);
  const history: KvOperation[] = [];
  let revision = 1;
  for (let i = 0, now = 0; i < count; i++) {
    // The effect comes at `now`, which only grows: that is the order.
    now += random.float();
    const client = freeAt.findIndex((at) => at < now);
    if (client === -1) continue;
    const startedAt = Math.max(freeAt[client]!, now - random.float() * 10);
    const endedAt = now + random.float() * 10;
    freeAt[client] = endedAt;
    const key = `k${random.below(keyCount)}`;
    const before = store.get(key);
    let call: KvCall = { kind: 'range', key };
    const kv = { key, value: before?.value ?? '', ...(revisions ? { mod: before?.mod ?? 0 } : {}) };
    let answer: KvAnswer = { kvs: before === undefined ? [] : [kv] };
    const kind = random.below(4);
    if (kind === 0) call = { kind: 'put', key, value: `v${i}` };
    if (kind === 1) call = { kind: 'delete', key };
    if (kind === 2) {
      const expected = random.below(2) === 0 ? null : (before?.value ?? null);
      call = { kind: 'cas', key, expected, value: `v${i}` };
      answer = { ...answer, succeeded: expected === (before?.value ?? null) };
    }
    if (kind === 0 || (kind === 2 && answer.succeeded)) store.set(key, { value: `v${i}`, mod: ++revision });
    if (kind === 0 || (kind === 2 && answer.succeeded)) answer = kind === 0 ? {} : { succeeded: true };
    if (kind === 1 && store.delete(key)) revision++;
    if (kind === 1) answer = { deleted: before === undefined ? 0 : 1 };
    const isUnknown = unknownIn > 0 && random.below(unknownIn) === 0;
    if (revisions) answer = { ...answer, revision };
    history.push({ client, call, startedAt, endedAt, answer: isUnknown ? null : answer });
  }
  return history;
}

const large = { count: 5000, clients: 20, keyCount: 10, revisions: true };

test('5,000 calls of 20 clients, some of them without an answer, are accepted', () => {
  const history = goodHistory(new SeededRandom(20_418), { ...large, unknownIn: 50 });
  assert.ok(history.length > 4000, 'calls of many clients');
  assert.equal(checkKv(history).verdict, 'linearizable');
  assert.equal(checkKvByKey(history).verdict, 'linearizable');
});

test('5,000 calls of 20 clients with one read made wrong are refused, wherever it is', () => {
  // With unknown writes before it, to refuse takes every way to place them: the search for that may end at its bound.
  const history = goodHistory(new SeededRandom(3), { ...large, unknownIn: 0 });
  assert.equal(checkKv(history).verdict, 'linearizable');
  for (let from = 0; from < 4000; from += 500) {
    const at = history.findIndex(
      ({ call, answer }, i) => i >= from && call.kind === 'range' && answer!.kvs!.length > 0,
    );
    const bad = [...history];
    const { revision, kvs } = history[at]!.answer!;
    bad[at] = { ...history[at]!, answer: { revision: revision!, kvs: [{ ...kvs![0]!, mod: kvs![0]!.mod! - 1 }] } };
    assert.equal(checkKv(bad).verdict, 'illegal', `read ${at}`);
    bad[at] = { ...history[at]!, answer: { kvs: [{ ...kvs![0]!, value: 'never written' }] } };
    assert.equal(checkKvByKey(bad).verdict, 'illegal', `read ${at}`);
  }
});

/** Every order, as the definition says it. */
function oracle(history: readonly KvOperation[]): boolean {
  const model = new KvModel(history);
  const isTaken = history.map(() => false);
  const search = (state: KvModel['initial']): boolean => {
    if (history.every(({ answer }, i) => isTaken[i] || answer === null)) return true;
    const firstEnd = Math.min(...history.map(({ answer, endedAt }, i) => (isTaken[i] || !answer ? Infinity : endedAt)));
    return history.some(({ call, answer, startedAt }, i) => {
      if (isTaken[i] || startedAt > firstEnd) return false;
      const next = model.step(state, call, answer);
      if (next === null) return false;
      isTaken[i] = true;
      const found = search(next);
      isTaken[i] = false;
      return found;
    });
  };
  return search(model.initial);
}

const tiny = { count: 8, clients: 4, keyCount: 1, unknownIn: 0 };

test('agrees with the definition on tiny histories, good and bad', () => {
  const seed = 7;
  const random = new SeededRandom(seed);
  const counts = { linearizable: 0, illegal: 0, unknown: 0 };
  for (let round = 0; round < 1500; round++) {
    const history = goodHistory(random, { ...tiny, revisions: round % 2 === 0 }).map((one) => {
      // Wrong answers now and then, and more unknown ones.
      if (random.below(4) === 0) return { ...one, answer: null };
      if (random.below(6) > 0 || one.answer?.kvs === undefined) return one;
      return { ...one, answer: { ...one.answer, kvs: [] } };
    });
    const { verdict } = checkKv(history);
    counts[verdict]++;
    assert.equal(verdict === 'linearizable', oracle(history), `seed ${seed} round ${round}`);
    if (round % 2 === 1) assert.equal(checkKvByKey(history).verdict, verdict, `by key, round ${round}`);
  }
  assert.ok(counts.linearizable > 300 && counts.illegal > 100, JSON.stringify(counts));
  assert.equal(counts.unknown, 0);
});
