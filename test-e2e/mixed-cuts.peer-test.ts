// Goal: a cluster of both kinds loses nothing when its members do not hear each other, whichever kind leads and whichever is cut off. Method:
// two keelsons and an etcd, each in a network namespace of its own (network.ts), under the load of cluster-load.ts; the kinds take turns to
// lead (KEELSON_E2E_LONG: each leads each time) and to be cut off both ways, heard by nobody, hear nobody, or be cut off from the other kind
// alone. The others go on meanwhile; then HashKV, the stored state and all that the clients were told are compared.

import { after, test } from 'node:test';
import { Cluster, type ClusterMember } from './cluster.ts';
import { agreeAcrossCompaction, moveLeader, sameStatesAtRest, underLoad } from './cluster-checks.ts';
import { type Host, Network } from './network.ts';
import { scratchFolder, sleep } from './program.ts';

const scratch = scratchFolder('mixed-cuts');
after(() => scratch.remove());

const skip = Network.refusal();
/** Each kind leads at each cut; else they take turns. */
const isLong = process.env['KEELSON_E2E_LONG'] !== undefined;
/** Longer than any election. */
const cutMs = 2500;

type Cut = (network: Network, leader: Host, others: readonly [Host, Host]) => void;

const cuts: readonly (readonly [string, Cut])[] = [
  ['cut off', (network, leader, others) => others.forEach((other) => void network.cutBothWays(leader, other))],
  ['heard by nobody', (network, leader, others) => others.forEach((other) => void network.cut(leader, other))],
  ['hears nobody', (network, leader, others) => others.forEach((other) => void network.cut(other, leader))],
  ['cut off from one', (network, leader, others) => network.cutBothWays(leader, others[0])],
];

test('two keelsons and an etcd that do not hear each other', { skip, timeout: 180_000 }, async (t) => {
  const network = new Network(3);
  const places = network.hosts.map(({ address, launcher }) => ({ host: address, launcher }));
  const kinds = ['keelson', 'etcd', 'keelson'] as const;
  try {
    const cluster = await Cluster.start(scratch.folder, kinds, [], places);
    const hostOf = (member: ClusterMember): Host => network.hosts[cluster.members.indexOf(member)]!;
    const [keelson, etcd] = cluster.members as [ClusterMember, ClusterMember];
    await underLoad(t, cluster, async (load, step) => {
      await load.writes(200);
      for (const [index, [what, cut]] of cuts.entries()) {
        for (const leader of isLong ? [keelson, etcd] : [index % 2 === 0 ? keelson : etcd]) {
          // The etcd first of the others, when it does not lead.
          const others = cluster.members
            .filter((member) => member !== leader)
            .sort((a, b) => (a.kind < b.kind ? -1 : 1));
          await step(`the leading ${leader.kind} ${what}`, async () => {
            await moveLeader(cluster, leader);
            cut(network, hostOf(leader), others.map(hostOf) as [Host, Host]);
            await sleep(cutMs);
            await load.writes(20);
            network.heal();
            await cluster.leader();
            await load.writes(20);
          });
        }
      }
      await step('all agree, before and after a compaction', () => agreeAcrossCompaction(cluster, load));
      await step('stored states are equal', () => sameStatesAtRest(cluster, load, scratch.folder));
    });
  } finally {
    network.remove();
  }
});
