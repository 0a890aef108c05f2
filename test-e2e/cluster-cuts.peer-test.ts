// Goal: three members whose traffic is cut, one way or both, serve as one correct store: the majority goes on soon, nobody else is told
// that a write succeeded, and who comes back disturbs nobody. Method: each member in a network namespace of its own (network.ts), under
// concurrent clients (support/history-load.ts) that reach all members all the time; times until the next write are printed.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cluster, type ClusterMember } from './cluster.ts';
import { type Harmed, harm, timeout } from './faulted-cluster.ts';
import { type Host, Network } from './network.ts';
import { scratchFolder, sleep } from './program.ts';

const scratch = scratchFolder('cluster-cuts');
after(() => scratch.remove());

const skip = Network.refusal();
/** Longer than any election. */
const cutMs = 3000;
const healedMs = 1000;

/** How `who` is cut off; `others` are all members but it. */
type Way = (network: Network, who: Host, leader: Host, others: readonly Host[]) => void;

const cutOff: Way = (network, who, _, others) => others.forEach((other) => void network.cutBothWays(who, other));
const isNotHeard: Way = (network, who, _, others) => others.forEach((other) => void network.cut(who, other));
const hearsNobody: Way = (network, who, _, others) => others.forEach((other) => void network.cut(other, who));
const cutOffFromLeader: Way = (network, who, leader) => network.cutBothWays(who, leader);

interface Cut {
  readonly what: string;
  readonly who: 'leader' | 'follower';
  readonly apply: Way;
}

const leaderCuts: readonly Cut[] = [
  { what: 'leader cut off both ways', who: 'leader', apply: cutOff },
  { what: 'leader hears all, and is not heard', who: 'leader', apply: isNotHeard },
  { what: 'leader is heard, and hears nobody', who: 'leader', apply: hearsNobody },
];

const followerCuts: readonly Cut[] = [
  { what: 'follower cut off both ways', who: 'follower', apply: cutOff },
  { what: 'follower is heard, and hears nobody', who: 'follower', apply: hearsNobody },
  { what: 'follower and leader cut off from each other', who: 'follower', apply: cutOffFromLeader },
];

for (const [title, cuts] of [
  ['the leader', leaderCuts],
  ['a follower', followerCuts],
] as const) {
  test(`cuts of ${title}`, { skip, timeout }, async (t) => {
    const network = new Network(3);
    const places = network.hosts.map(({ address, launcher }) => ({ host: address, launcher }));
    const kinds = ['keelson', 'keelson', 'keelson'] as const;
    try {
      await harm(
        t,
        () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), kinds, [], places),
        async (harmed) => {
          for (const cut of cuts) await cutAndHeal(network, harmed, cut);
        },
      );
    } finally {
      network.remove();
    }
  });
}

async function cutAndHeal(network: Network, { cluster, recovery }: Harmed, cut: Cut): Promise<void> {
  const hostOf = (member: ClusterMember): Host => network.hosts[cluster.members.indexOf(member)]!;
  const leader = await cluster.leader();
  const who = cut.who === 'leader' ? leader : (await cluster.followers())[0]!;
  const others = cluster.members.filter((member) => member !== who);
  cut.apply(network, hostOf(who), hostOf(leader), others.map(hostOf));
  await recovery(cut.what);
  await sleep(cutMs);
  const term = await highestTerm(others);
  network.heal();
  await recovery(`${cut.what}: healed`);
  await sleep(healedMs);
  await cluster.leader();
  assert.equal(await highestTerm(others), term, `${cut.what}: who comes back disturbs nobody`);
}

async function highestTerm(members: readonly ClusterMember[]): Promise<number> {
  return Math.max(...(await Promise.all(members.map(async (member) => (await member.status()).term))));
}
