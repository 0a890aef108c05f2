// Goal: a leader that is removed leaves a cluster that can go on, also when nobody hears from it that the removal is committed. Method: the
// simulated cluster under load; in the turn in which the leader applies its own removal its links are cut, for half a minute, so that the
// others have the entry and no more. (An etcd ends after a second, and the others never get a leader again: they need its vote.)

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfChangeType, NONE } from '../raft/types.ts';
import type { Member } from '../server/member.ts';
import { type SimReport, simulate } from './sim-cluster.ts';
import type { SimMember } from './sim-member.ts';
import { calmLink } from './sim-network.ts';
import { noFaults, type SimOptions } from './sim-options.ts';

/** Connected for long enough by then that a change of the members is not refused. */
const removalMs = 12_000;
const cutForMs = 30_000;
/** Runs in which it led until then, and runs in all. */
const ledRuns = 3;
const runsMax = 20;
const plantedSeedsMax = 60;
/** From when the links are mended: two elections at most. */
const recoveredMs = 8000;

interface Case {
  readonly memberCount: number;
  /** One more is down from before the removal until the end. */
  readonly isOneDown: boolean;
  /** What the others say still arrives. */
  readonly isOneWay: boolean;
  readonly preVote: boolean;
}

interface Outcome {
  /** It still led when it applied its removal; in larger clusters the next leader may be there already, and see to the rest. */
  led: boolean;
  /** Since when the links were cut; -1: never. */
  cutAtMs: number;
  /** Those that were up then, without the leader. */
  others: SimMember[];
  leader: SimMember | null;
  warnings: number;
  /** While the links were cut. */
  stayed: boolean;
  /** Of the others, when there was time to recover. */
  voters: readonly bigint[] | null;
  isGone: boolean;
}

const waitsText = 'this member was removed, and stays until a quorum of the voters knows';

function quiet({ memberCount, preVote }: Case): (options: SimOptions) => SimOptions {
  return (options) => ({
    ...options,
    memberCount,
    preVote,
    clientCount: 4,
    watcherCount: 1,
    leaseHolderCount: 0,
    durationMs: removalMs + cutForMs + recoveredMs + 2000,
    heartbeatMs: 100,
    clockSkew: 0,
    syncMs: 1,
    flushMs: 5,
    link: { ...calmLink, delayMs: 1 },
    faults: { ...noFaults, restart: Infinity },
    client: { ...options.client, thinkMs: 20, compactions: 0 },
  });
}

/** Removes the leader, and watches what comes of it. */
class Scenario {
  readonly outcome: Outcome = {
    led: false,
    cutAtMs: -1,
    others: [],
    leader: null,
    warnings: 0,
    stayed: false,
    voters: null,
    isGone: false,
  };
  private readonly sims: SimMember[] = [];
  private readonly how: Case;

  constructor(how: Case) {
    this.how = how;
  }

  readonly opened = (member: Member, sim: SimMember): void => {
    if (this.sims.length === 0) sim.world.loop.after(removalMs, () => this.begin());
    this.sims.push(sim);
    const { membership } = member;
    const applied = membership.applied.bind(membership);
    membership.applied = (change) => {
      if (change.type === ConfChangeType.removeNode && change.nodeId === member.parts.id) this.cut(sim);
      applied(change);
    };
  };

  private begin(): void {
    const leader = this.sims.find(({ member }) => member?.isLeader === true)!;
    this.outcome.leader = leader;
    if (this.how.isOneDown) this.sims.find((sim) => sim !== leader)!.die('kill', 'the test');
    const { loop } = leader.world;
    // In the middle of the clients' writes.
    leader.enter(() => leader.member!.membership.remove(leader.memberId, () => {}));
    loop.after(cutForMs, () => {
      this.outcome.stayed = leader.member !== null;
    });
    loop.after(cutForMs + recoveredMs, () => this.look());
  }

  private cut(sim: SimMember): void {
    const { loop, network } = sim.world;
    const others = this.sims.filter((other) => other !== sim && other.isUp);
    // Raft has stepped down with the change.
    const led = sim.member!.parts.raft.lead === NONE;
    Object.assign(this.outcome, { led, cutAtMs: loop.nowMs, others });
    for (const other of others) {
      const ways = [[sim.memberId, other.memberId] as const, [other.memberId, sim.memberId] as const];
      for (const [from, to] of this.how.isOneWay ? ways.slice(0, 1) : ways) {
        network.cut(from, to);
        loop.after(cutForMs, () => network.mend(from, to));
      }
    }
  }

  private look(): void {
    const { outcome } = this;
    const next = outcome.others.find(({ member }) => member?.isLeader === true);
    outcome.voters = next?.member?.parts.raft.status().confState.voters ?? null;
    outcome.isGone = outcome.leader!.wasRemoved;
  }
}

async function removeLeader(how: Case, seed: number): Promise<Outcome> {
  const scenario = new Scenario(how);
  const { outcome } = scenario;
  const report = await simulate(seed, {
    hooks: { opened: scenario.opened },
    change: quiet(how),
    onLine: (line) => {
      if (line.includes(waitsText)) outcome.warnings++;
    },
  });
  assert.equal(report.failure, null, `seed ${seed}: ${report.trace.slice(-40).join('\n')}`);
  assert.ok(report.calls.answered > 1000, 'the clients write all the time');
  return outcome;
}

const cases: readonly (Case & { readonly title: string })[] = [
  { title: 'of two', memberCount: 2, isOneDown: false, isOneWay: false, preVote: true },
  { title: 'of two, which hears the other one', memberCount: 2, isOneDown: false, isOneWay: true, preVote: true },
  { title: 'of two, without pre-vote', memberCount: 2, isOneDown: false, isOneWay: false, preVote: false },
  { title: 'of four, one of which is down', memberCount: 4, isOneDown: true, isOneWay: false, preVote: true },
];

for (const how of cases) {
  test(`the leader ${how.title}: it stays until they know, and they go on`, { timeout: 300_000 }, async () => {
    let count = 0;
    for (let seed = 1; count < ledRuns; seed++) {
      assert.ok(seed <= runsMax, `${count} leaders led when they applied it`);
      const { led, cutAtMs, stayed, warnings, voters, isGone, leader } = await removeLeader(how, seed);
      const text = `seed ${seed}`;
      assert.ok(cutAtMs >= removalMs && cutAtMs < removalMs + 1000, `${text}: cut at ${cutAtMs}`);
      assert.equal(stayed, led, `${text}: it stays when it has to`);
      assert.equal(warnings, led ? 1 : 0, text);
      if (led) count++;
      assert.ok(voters !== null, `${text}: somebody leads soon after the links are mended`);
      assert.equal(voters.length, how.memberCount - 1, text);
      assert.ok(!voters.includes(leader!.memberId), text);
      assert.ok(isGone, `${text}: it has ended`);
    }
  });
}

test('the operator removes leaders of two at random, over links that lose messages: found when they end before somebody knows', {
  timeout: 300_000,
}, async () => {
  const change = (options: SimOptions): SimOptions => ({
    ...options,
    memberCount: 1,
    clientCount: 2,
    durationMs: 60_000,
    link: { ...calmLink, loss: 0.3 },
    faults: { ...noFaults, operator: 1000 },
  });
  const endsEarly = ({ parts, removal }: Member): void => {
    removal.noteApplied = () => parts.onRemoved('at once');
  };
  let found: SimReport | null = null;
  for (let seed = 1; found === null; seed++) {
    assert.ok(seed <= plantedSeedsMax, 'not found');
    const report = await simulate(seed, { change, hooks: { opened: endsEarly } });
    if (report.failure !== null) found = report;
  }
  assert.match(found.failure!, /does not serve|not every member takes a write/);
  assert.equal((await simulate(found.seed, { change })).failure, null, `seed ${found.seed} without the bug`);
});
