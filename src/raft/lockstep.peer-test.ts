// Goal: src/raft has the semantics of go.etcd.io/raft/v3 v3.7.0. Method: a group of our RawNodes and one of etcd's (the process
// keelson-raft, test-e2e/peers/build.sh tools) get the same inputs in an order drawn from a seed: ticks, campaigns, requests of
// all sizes, changes of the configuration of every kind, reads, transfers, reports, messages that are delivered, lost, doubled,
// reordered, cut off, writes and applies that lag, crashes that lose what was not written, snapshots, starts with other
// options. After every command both answer with all that came out and with the member's whole state, private fields included:
// entries, messages and their order, reads, hard and soft state, marks of the log, timers, votes, configuration, quotas, and
// on a leader each follower's match, next, state, window, pause, snapshot and activity. The answers must be the same text.
//
//   node src/raft/lockstep.peer-test.ts [--form async|settled] [--seed N] [--commands N] [--history N]
//
// In two forms:
// - async: asynchronous storage writes, any number of inputs between Readies, writes and applies acknowledged later. etcd's core
//   has the few changes of keelson-raft/deferral, which defer what ours defers. Everything is equal.
// - settled: the loop of etcd's server after every input, against etcd's core as it is. Everything is equal but for when a
//   leader sends entries: src/testing/raft-relation.ts.
//
// What is brought together before it is compared, each a deliberate difference (raft.ts names their tests):
// - Random election timeouts: ours draws, etcd's private field is set after each command.
// - Appends for everybody and heartbeats are made with the Ready; empty appends that can't help are left out; a refusal during a
//   snapshot is stale; a lone voter reads after its first commit of the term only: the changes in keelson-raft/deferral.
// - A leader's own refused configuration change: ours refuses it, and then proposes the empty entry that etcd's appends.
// - A dropped proposal leaves etcd's pendingConfIndex as it was: there is no entry that could be pending.
// - One's own pre-vote counts at once; of a leader's acknowledgements to itself for one write the last counts.
// - A write is acknowledged together with the next one where etcd would ignore it: of an older term, or replaced since.
// - A received snapshot is applied when it is durable, after all that came before it, whose configuration changes are not given
//   to etcd's: they would undo the snapshot's.
// - Reads that wait for a term's first commit are forgotten with the leadership; a change of the configuration answers those
//   that it confirms.
// - A leader's match of itself while its log is not all durable: ours is what is durable, etcd's begins at the log's end.
// - StepDownOnRemoval is on; MustSync is true with a snapshot; byte bounds lie where our fixed overhead of an entry and its
//   encoded size decide the same.
// - Not asked: a change of nothing that names a transition, proposed in a joint configuration (etcd's members panic).

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { parseArgs } from 'node:util';
import { RaftEtcd } from '../testing/raft-etcd.ts';
import { Lockstep, LockstepDifference, type LockstepForm } from '../testing/raft-lockstep.ts';
import { Inflights } from './inflights.ts';
import { RaftLog } from './log.ts';
import { Raft } from './raft.ts';

const COMMANDS_A_SEED = 6000;
/** Without --seed or --commands each form gets new seeds for this long, and until it had this many. */
const BUDGET_MS = 8000;
const COMMANDS_MIN = 120_000;

const { values } = parseArgs({
  options: {
    form: { type: 'string' },
    seed: { type: 'string' },
    commands: { type: 'string' },
    history: { type: 'string', default: '40' },
  },
});
const firstSeed = Number(values.seed ?? randomInt(1, 2 ** 31));
const isLong = values.commands !== undefined || values.seed !== undefined;
const commandsMax = isLong ? Number(values.commands ?? COMMANDS_A_SEED) : Number.POSITIVE_INFINITY;
const commandsMin = isLong ? commandsMax : COMMANDS_MIN;

/** Something of everything must have happened. */
const EXPECTED = [
  'configuration changes',
  'crashes',
  'mixed proposals',
  'preVoteResps',
  'readIndexResps',
  'rejecting appResps',
  'rejecting voteResps',
  'snaps',
  'timeoutNows',
] as const;

async function runSeed(form: LockstepForm, seed: number, commands: number): Promise<Lockstep> {
  const etcd = new RaftEtcd(form === 'async' ? 'deferred' : 'plain');
  try {
    const lockstep = new Lockstep({ form, seed, commands, history: Number(values.history) }, etcd);
    await lockstep.run();
    return lockstep;
  } finally {
    etcd.close();
  }
}

for (const form of ['async', 'settled'] as const) {
  if (values.form !== undefined && values.form !== form) continue;
  test(`${form}: seeds from ${firstSeed}`, async (t) => {
    const until = performance.now() + (isLong ? 0 : BUDGET_MS);
    const counts: Record<string, number> = {};
    let seed = firstSeed;
    let commands = 0;
    while (commands < commandsMin || performance.now() < until) {
      const run = await runSeed(form, seed, Math.min(COMMANDS_A_SEED, commandsMax - commands));
      commands += run.commands;
      seed++;
      const all = form === 'settled' ? { ...run.counts, ...run.relation.counts } : run.counts;
      for (const [name, count] of Object.entries(all)) counts[name] = (counts[name] ?? 0) + count;
    }
    t.diagnostic(`${commands} commands, ${seed - firstSeed} seeds from ${firstSeed}: ${JSON.stringify(counts)}`);
    if (isLong) return;
    for (const name of EXPECTED) assert.ok((counts[name] ?? 0) > 0, `no ${name}`);
    // About 0.02 % of the turns send an entry before etcd would.
    if (form === 'settled') assert.ok(counts['equal']! > counts['turns']! * 0.998, 'ours often sends before etcd');
  });
}

/** Seeds from 1 until the difference shows. */
async function commandsToDifference(): Promise<number> {
  let commands = 0;
  for (let seed = 1; seed <= 20; seed++) {
    try {
      commands += (await runSeed('async', seed, COMMANDS_A_SEED)).commands;
    } catch (error) {
      if (error instanceof LockstepDifference) return commands + error.command;
      throw error;
    }
  }
  assert.fail(`not found in ${commands} commands`);
}

// A comparison that finds nothing must be one that would.
if (!isLong) {
  test('planted: an entry of an older term is committed by counting', async (t) => {
    t.mock.method(RaftLog.prototype, 'maybeCommit', function (this: RaftLog, index: number): boolean {
      if (index <= this.committed) return false;
      this.commitTo(index);
      return true;
    });
    t.diagnostic(`found after ${await commandsToDifference()} commands`);
  });

  test('planted: the vote is kept when the term changes', async (t) => {
    const { becomeFollower } = Raft.prototype;
    t.mock.method(Raft.prototype, 'becomeFollower', function (this: Raft, term: number, lead: bigint): void {
      const { vote } = this;
      becomeFollower.call(this, term, lead);
      this.vote = vote;
    });
    t.diagnostic(`found after ${await commandsToDifference()} commands`);
  });

  test('planted: the window of messages in flight is never freed', async (t) => {
    t.mock.method(Inflights.prototype, 'freeTo', () => {});
    t.diagnostic(`found after ${await commandsToDifference()} commands`);
  });
}
