// Goal: the leader decides the cluster's version as etcd 3.7's monitor does: the lowest that all members have, 3.0 while one is not
// known, higher when all are, lower only by a downgrade, which ends by itself; every member's storage version follows; a server that
// is too old, or too new by a minor version, does not start. Method: a real member; its peers are scripts.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { versionLookMs } from '../cluster-limits.ts';
import { ClusterVersionSetRequest, DowngradeInfoSetRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { MetaKey } from '../snapshot/schema.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { ScriptedPeers } from '../testing/scripted-peers.ts';

const A = 'http://a:2380';
const B = 'http://b:2380';
let fixture: MemberFixture;
let peers: ScriptedPeers;
let isOpen = false;

beforeEach(() => {
  fixture = new MemberFixture();
  peers = new ScriptedPeers();
  fixture.peerRequests = peers;
});

afterEach(async () => {
  if (isOpen) await fixture.stop();
  isOpen = false;
  fixture.remove();
});

/** With two members beside it, which are no voters: the log goes on without them. */
async function start(...versions: (string | null)[]): Promise<void> {
  const member = await fixture.open();
  isOpen = true;
  for (const [at, version] of versions.entries()) {
    const url = [A, B][at]!;
    member.parts.cluster.add({ id: BigInt(at + 2), name: '', peerUrls: [url], clientUrls: [], isLearner: true });
    peers.version(url, version);
  }
  await new Promise<void>((ready) => member.start(ready));
}

const version = (): string | undefined => fixture.member.parts.cluster.version;
const stored = (): string | undefined =>
  fixture.member.parts.backend.bucketGet('meta', MetaKey.storageVersion)?.toString();
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await sleep(5);
  assert.ok(condition(), what);
}

/** The next look at the versions, and what follows from it. */
async function look(): Promise<void> {
  const before = peers.asked.length;
  fixture.advance(versionLookMs + 1);
  fixture.member.tick();
  await until('the peers are asked', () => peers.asked.length > before);
  await sleep(30);
}

function downgrade(kind: 'validate' | 'enable', target: string): Promise<EtcdError | string> {
  return new Promise((resolve) => {
    fixture.member.downgrades[kind](target, (error, clusterVersion) => resolve(error ?? clusterVersion));
  });
}

describe("the cluster's version", () => {
  it('is the own one, at once, where there is nobody else', async () => {
    await start();
    await until('3.7.0', () => version() === '3.7.0');
    assert.deepEqual(
      fixture.logged('updated storage version').map((line) => line['new-storage-version']),
      ['3.6.0', '3.7.0'],
    );
    assert.equal(stored(), '3.7.0');
    assert.equal(fixture.logged('setting up initial cluster version using v3 API')[0]?.['cluster-version'], '3.7');
    await until('told', () => fixture.logged('cluster version is updated').length === 1);
  });

  it('is the lowest, and rises when every member has', async () => {
    await start('3.6.4', '3.7.2');
    await until('3.6.0', () => version() === '3.6.0');
    assert.equal(stored(), '3.6.0');
    assert.ok(fixture.logged('leader found higher-versioned member').length > 0);
    await look();
    assert.equal(version(), '3.6.0');
    peers.version(A, '3.7.0');
    await look();
    await until('3.7.0', () => version() === '3.7.0');
    assert.equal(stored(), '3.7.0');
    const [line] = fixture.logged('updating cluster version using v3 API');
    assert.deepEqual([line?.['from'], line?.['to']], ['3.6', '3.7']);
    // Never down by itself.
    peers.version(A, '3.6.4');
    await look();
    assert.equal(version(), '3.7.0');
  });

  it('is 3.0 while a member does not tell its own, and no storage version', async () => {
    await start('3.7.1', null);
    await until('3.0.0', () => version() === '3.0.0');
    assert.equal(stored(), undefined);
    assert.equal(fixture.member.storageVersion.text, '3.5.0');
    assert.equal(fixture.logged('failed to get version')[0]?.['remote-member-id'], '3');
    await look();
    assert.equal(version(), '3.0.0');
    peers.version(B, 'nonsense');
    await look();
    assert.equal(version(), '3.0.0');
    assert.equal(
      fixture.logged('failed to parse server version of remote member')[0]?.['remote-member-version'],
      'nonsense',
    );
    peers.version(B, '3.7.1');
    await look();
    await until('3.7.0', () => version() === '3.7.0');
  });

  it('is asked for at the second URL of a member whose first does not answer', async () => {
    const member = await fixture.open();
    isOpen = true;
    member.parts.cluster.add({ id: 2n, name: '', peerUrls: [A, B], clientUrls: [], isLearner: true });
    peers.version(B, '3.6.0');
    await new Promise<void>((ready) => member.start(ready));
    await until('3.6.0', () => version() === '3.6.0');
    assert.equal(fixture.logged('failed to reach the peer URL')[0]?.['address'], `${A}/version`);
  });
});

describe('a downgrade', () => {
  it('goes down by one minor version, is told, and ends when every member has arrived', async () => {
    await start('3.7.1');
    await until('3.7.0', () => version() === '3.7.0');
    for (const [target, error] of [
      ['3.5.0', 'etcdserver: invalid downgrade target version'],
      ['3.7.0', 'etcdserver: invalid downgrade target version'],
      ['3.8.0', 'etcdserver: invalid downgrade target version'],
      ['three', 'etcdserver: wrong downgrade target version format'],
    ] as const) {
      assert.equal(((await downgrade('enable', target)) as EtcdError).message, error);
      assert.equal(((await downgrade('validate', target)) as EtcdError).message, error);
    }
    const [refused] = fixture.logged('reject downgrade request');
    assert.deepEqual([refused?.['cluster-version'], refused?.['target-version']], ['3.7', '3.5.0']);
    assert.equal(await downgrade('validate', '3.6'), '3.7');
    assert.equal(await downgrade('enable', '3.6'), '3.7');
    const inProcess = (await downgrade('validate', '3.6')) as EtcdError;
    assert.equal(inProcess.message, 'etcdserver: cluster has a downgrade job in progress');
    assert.deepEqual(fixture.member.parts.cluster.downgrade, { isEnabled: true, targetVersion: '3.6.0' });
    await look();
    await until('3.6.0', () => version() === '3.6.0');
    assert.equal(stored(), '3.6.0');
    assert.equal(fixture.logged('The server is ready to downgrade')[0]?.['target-version'], '3.6.0');
    // This server is still 3.7.
    await look();
    assert.equal(fixture.member.parts.cluster.downgrade.isEnabled, true);
    assert.ok(fixture.logged('remotes server has mismatching etcd version').length > 0);
    (fixture.member.parts as { serverVersion: string }).serverVersion = '3.6.9';
    peers.version(A, '3.6.9');
    fixture.advance(fixture.member.parts.checks.downgradeMs + 1);
    fixture.member.tick();
    await until('over', () => !fixture.member.parts.cluster.downgrade.isEnabled);
    assert.equal(fixture.logged('the cluster has been downgraded')[0]?.['cluster-version'], '3.6.0');
  });

  it('can be given up; the version rises again', async () => {
    await start('3.7.1');
    await until('3.7.0', () => version() === '3.7.0');
    await downgrade('enable', '3.6');
    await look();
    await until('3.6.0', () => version() === '3.6.0');
    assert.equal(await new Promise((resolve) => fixture.member.downgrades.cancel((_, shown) => resolve(shown))), '3.6');
    await look();
    await until('3.7.0', () => version() === '3.7.0');
    await new Promise<void>((done) => fixture.member.downgrades.cancel(() => done()));
    const [line] = fixture.logged('failed to cancel downgrade');
    assert.equal(line?.['error'], 'etcdserver: no inflight downgrade job');
  });

  it('survives a restart', async () => {
    await start();
    await until('3.7.0', () => version() === '3.7.0');
    await downgrade('enable', '3.6');
    await fixture.stop();
    await fixture.open();
    assert.deepEqual(fixture.member.parts.cluster.downgrade, { isEnabled: true, targetVersion: '3.6.0' });
    const [line] = fixture.logged('cluster is downgrading to target version');
    assert.equal(line?.['target-cluster-version'], '3.6.0');
  });

  it('to a version that nobody can go to decides nothing', async () => {
    await start('3.7.1');
    await until('3.7.0', () => version() === '3.7.0');
    await fixture.propose(RequestField.downgradeInfoSet, DowngradeInfoSetRequest, { enabled: true, ver: '3.4.0' });
    await look();
    assert.equal(version(), '3.7.0');
    const [line] = fixture.logged('Cannot downgrade from cluster-version to downgrade-target');
    assert.deepEqual([line?.['downgrade-target'], line?.['cluster-version']], ['3.4.0', '3.7.0']);
  });
});

describe('the storage version', () => {
  it("follows the cluster's also where no entry says so", async () => {
    await start('3.7.1');
    await until('3.7.0', () => version() === '3.7.0');
    const { backend } = fixture.member.parts;
    backend.bucketPut('meta', MetaKey.storageVersion, Buffer.from('3.6.0'));
    backend.endApply(backend.consistentIndex, backend.consistentTerm);
    await look();
    assert.equal(stored(), '3.7.0');
  });
});

describe('a start', () => {
  for (const [set, reason] of [
    ['3.8.0', /invalid downgrade; server version is lower than determined cluster version \(server 3.7, cluster 3.8\)/],
    ['3.5.0', /an upgrade must not skip a minor version: the cluster is at 3.5, this server is 3.7/],
  ] as const) {
    it(`on the data of a cluster of version ${set} is refused`, async () => {
      await start();
      await until('3.7.0', () => version() === '3.7.0');
      // As a member of that version would have left it.
      fixture.member.parts.cluster.setVersion(set);
      await fixture.put('k', 'v');
      await fixture.stop();
      isOpen = false;
      await assert.rejects(fixture.open(), reason);
    });
  }

  it('on data of a schema that is not known is refused', async () => {
    await start();
    await until('3.7.0', () => version() === '3.7.0');
    fixture.member.parts.backend.bucketPut('meta', MetaKey.storageVersion, Buffer.from('3.9.0'));
    await fixture.put('k', 'v');
    await fixture.stop();
    isOpen = false;
    await assert.rejects(fixture.open(), /failed to validate the stored schema: version "3.9.0" is not supported/);
  });
});

describe('an entry', () => {
  it('that sets a version above the own ends the server', async () => {
    await start();
    await until('3.7.0', () => version() === '3.7.0');
    const parts = fixture.member.parts as { schedule: (run: () => void) => void };
    const thrown = new Promise<unknown>((resolve) => {
      parts.schedule = (run) =>
        void setImmediate(() => {
          try {
            run();
          } catch (error) {
            resolve(error);
          }
        });
    });
    void fixture.propose(RequestField.clusterVersionSet, ClusterVersionSetRequest, { ver: '3.8.0' });
    const text = 'invalid downgrade; server version is lower than determined cluster version (server 3.7, cluster 3.8)';
    assert.equal(((await thrown) as Error).message, text);
    // A process ends here; this one closes what it has open.
    const { backend } = fixture.member.parts;
    backend.endApply(backend.consistentIndex + 1, backend.consistentTerm);
  });
});
