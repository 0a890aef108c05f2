// Goal: whatever a crash of the machine leaves of unsynced writes and names, nothing acknowledged is lost and nothing is
// invented. Method: random appends, overwrites, snapshots and releases on the simulated disk with a write in flight or not; the
// machine stops at a random call (also in the middle of it, of a rotation, of a repair); reopen, compare, go on; seeded.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { DeferredWalWriter } from '../testing/deferred-wal-writer.ts';
import { SimCrash, SimDisk } from '../testing/sim-disk.ts';
import { walEntries, walOptions } from '../testing/wal-fixture.ts';
import type { WalEntry, WalHardState } from './format.ts';
import { openWal, type Wal } from './wal.ts';

/** The state of the log after one append: what a reader may find. */
interface State {
  /** Ticket that makes it durable. */
  readonly ticket: number;
  readonly base: number;
  readonly entries: readonly WalEntry[];
  readonly hardState: WalHardState;
}

class Run {
  readonly random: Random;
  readonly disk: SimDisk;
  wal: Wal | null = null;
  writer: DeferredWalWriter | null = null;
  /** states[0] is durable for sure; a later one may be found after a crash. */
  states: State[] = [{ ticket: 0, base: 0, entries: [], hardState: { term: 0, vote: 0n, commit: 0 } }];
  released = 0;
  term = 1;
  crashes = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.disk = new SimDisk(this.random);
  }

  open(): void {
    const { random, disk } = this;
    this.writer = null;
    const deferred = random.below(3) > 0;
    const options = walOptions(disk, {
      random,
      segmentBytes: 1024 + random.below(2000),
      segmentsMax: 1 + random.below(3),
      startIndex: random.below(2) === 0 ? this.released : 0,
    });
    // An older start may have been released: then only the newest one is sure to be there.
    const startIndex = this.released;
    const { wal, replay } = openWal({
      ...options,
      startIndex,
      writer: deferred ? (config) => (this.writer = new DeferredWalWriter(disk, config)) : options.writer,
    });
    this.wal = wal;
    const found = this.states.find((state) => {
      const expected = state.entries.slice(Math.max(0, replay.start.index - state.base));
      return (
        state.hardState.commit === replay.hardState.commit &&
        state.hardState.term === replay.hardState.term &&
        Math.max(state.base, startIndex) === replay.start.index &&
        expected.length === replay.entries.length &&
        expected.every((entry, i) => {
          const other = replay.entries[i]!;
          return entry.term === other.term && entry.index === other.index && entry.data.equals(other.data);
        })
      );
    });
    assert.ok(found, `the log is one of the ${this.states.length} states that it may be in`);
    this.states = [{ ...found, ticket: 0 }];
  }

  step(): void {
    const { random, wal, writer } = this;
    assert.ok(wal !== null);
    const newest = this.states.at(-1)!;
    const choice = random.below(10);
    if (choice < 5) this.append(wal, newest);
    else if (choice === 5) wal.release(this.release());
    else if (writer !== null && writer.pending > 0) writer.step();
    else wal.poll();
    this.acknowledge(wal);
  }

  /** Everything before the newest durable ticket is certain from now on. */
  acknowledge(wal: Wal): void {
    const certain = this.states.findLastIndex((state) => state.ticket <= wal.durableTicket);
    if (certain > 0) this.states = this.states.slice(certain);
  }

  /** What the backend has synced: committed in a state that is durable. */
  release(): number {
    const { commit } = this.states[0]!.hardState;
    this.released = Math.max(this.released, this.random.below(commit + 1));
    return this.released;
  }

  append(wal: Wal, newest: State): void {
    const { random } = this;
    const last = newest.base + newest.entries.length;
    const { commit } = newest.hardState;
    if (random.below(12) === 0) this.term++;
    if (random.below(25) === 0) {
      const index = commit + 1 + random.below(10);
      const hardState = { term: this.term, vote: 0n, commit: index };
      wal.append(hardState, [], { index, term: this.term, reset: true });
      this.push(wal, { base: index, entries: [], hardState });
      return;
    }
    // Now and then a new leader's entries replace uncommitted ones.
    const first = random.below(8) === 0 ? last + 1 - random.below(last - Math.max(commit, newest.base) + 1) : last + 1;
    if (first <= last) this.term++;
    const added = walEntries(first, random.below(5), this.term, random.below(200));
    const kept = added.length === 0 ? newest.entries : newest.entries.slice(0, first - 1 - newest.base);
    const entries = [...kept, ...added];
    const lastIndex = newest.base + entries.length;
    const hardState = { term: this.term, vote: 1n, commit: commit + random.below(lastIndex - commit + 1) };
    wal.append(hardState, added);
    this.push(wal, { base: newest.base, entries, hardState });
  }

  push(wal: Wal, state: Omit<State, 'ticket'>): void {
    // Known before sync(): a crash within it may leave the record on the disk.
    const pending = { ...state, ticket: Number.POSITIVE_INFINITY };
    this.states.push(pending);
    const ticket = wal.sync(() => {});
    this.states[this.states.length - 1] = { ...state, ticket };
    if (this.random.below(2) === 0) wal.waitDurable(ticket, 0);
  }

  life(): void {
    const { disk, random } = this;
    disk.crashAfter = disk.changes + random.below(120);
    try {
      this.open();
      for (let i = 0; i < 200; i++) this.step();
      disk.crashAfter = disk.changes;
      disk.syncDirectory('/none');
    } catch (error) {
      if (!(error instanceof SimCrash)) throw error;
    }
    this.crashes++;
    disk.crashAfter = Number.POSITIVE_INFINITY;
    if (random.below(5) === 0) disk.kill();
    else disk.crash();
  }
}

const seeds = Number(process.env['WAL_CRASH_SEEDS'] ?? 150);
const firstSeed = Number(process.env['WAL_CRASH_SEED'] ?? 1);

test(`${seeds} seeds of crashes lose nothing acknowledged and invent nothing`, () => {
  let crashes = 0;
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const run = new Run(seed);
    try {
      for (let life = 0; life < 20; life++) run.life();
      run.open();
    } catch (error) {
      throw new Error(`replay with WAL_CRASH_SEED=${seed} WAL_CRASH_SEEDS=1`, { cause: error });
    }
    crashes += run.crashes;
  }
  assert.equal(crashes, seeds * 20);
});
