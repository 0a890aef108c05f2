// Goal: until keelson knows users and roles, no keelson serves to everybody what an etcd protects, and none goes on in another state
// than the etcds of its cluster. Method: an etcd of a mixed cluster is asked for a new user: nobody gets it while a keelson leads; when an
// etcd does, the keelson ends, saying why. A keelson joins a cluster of etcds with authentication: it ends when it has the leader's
// snapshot, and when it is started on that again.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { Cluster, ClusterMember, ctl } from './cluster.ts';
import { moveLeader } from './cluster-checks.ts';
import { scratchFolder, until } from './program.ts';

const scratch = scratchFolder('mixed-auth');
after(() => scratch.remove());
/** Of a data directory that is not for this version. */
const OTHER_VERSION = 14;

/** Only of a keelson; an etcd, which runs here to check the test, goes on. */
async function ended(member: ClusterMember, reason: RegExp): Promise<void> {
  if (member.kind === 'etcd') return;
  await until(`${member.name} to end`, 20_000, () => !member.isRunning);
  assert.equal((await member.exited).code, OTHER_VERSION, member.log().slice(-2000));
  assert.match(member.log(), reason);
}

test('a user is added through an etcd: a keelson that leads does not take it, one that follows ends', {
  timeout: 90_000,
}, async () => {
  const cluster = await Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), ['etcd', 'etcd', 'keelson']);
  try {
    const [etcd, , keelson] = cluster.members;
    const addUser = (): Promise<string> => ctl([etcd!.endpoint], 'user', 'add', 'root:secret', '--command-timeout=8s');
    await moveLeader(cluster, keelson!);
    if (keelson!.kind === 'keelson') {
      await assert.rejects(addUser);
      assert.match(keelson!.log(), /rejected what a peer sent.*about authentication, users or roles/);
      await ctl([keelson!.endpoint], 'put', 'goes', 'on');
    }
    await moveLeader(cluster, etcd!);
    await addUser();
    await ended(keelson!, /cannot apply yet/);
    await until('the etcds to go on', 20_000, () => ctl([etcd!.endpoint], 'put', 'goes', 'on'));
  } finally {
    await cluster.end();
  }
});

test('a keelson joins etcds with authentication: it ends and serves nothing', { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(scratch.folder, 'cluster-'));
  const cluster = await Cluster.start(folder, ['etcd', 'etcd', 'etcd']);
  const joining = new ClusterMember('joining', 'keelson', folder, await freePorts(2), []);
  try {
    await cluster.leader();
    // So many that who joins gets a snapshot.
    for (let index = 0; index < 120; index++) await cluster.ctl('put', `key${index}`, 'secret');
    await cluster.ctl('user', 'add', 'root:secret');
    await cluster.ctl('user', 'grant-role', 'root', 'root');
    await cluster.ctl('auth', 'enable');
    await until('the learner', 20_000, () =>
      cluster.ctl('--user=root:secret', 'member', 'add', joining.name, `--peer-urls=${joining.peerUrl}`, '--learner'),
    );
    const initialCluster = `${cluster.initialCluster()},${joining.name}=${joining.peerUrl}`;
    for (let start = 0; start < 2; start++) {
      joining.launch({ initialCluster, state: 'existing' });
      await ended(joining, /has authentication enabled, which this version of keelson cannot enforce yet/);
      assert.doesNotMatch(joining.log(), /ready to serve client requests/);
    }
  } finally {
    await joining.kill();
    await cluster.end();
  }
});
