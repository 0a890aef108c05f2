// Goal: a member whose database differs from the others' is found, named and kept from doing harm, as in etcd, whichever of the two it is
// and whichever leads: by the periodic check, by the hashes of compactions, and by the check before a start. Method: three members; one
// is stopped, some bytes of values in its file are changed, and it is started again.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Cluster, type ClusterMember, ctl, type Kind } from './cluster.ts';
import { until } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-corruption-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const SOUND = 'sound-value';
const ROTTEN = 'rotten-valu';
const keys = 20;
let clusters = 0;

/** Of three, the last one damaged and started again, if it starts. */
async function withDamage(
  kinds: readonly Kind[],
  flags: readonly string[],
  look: (cluster: Cluster, damaged: ClusterMember) => Promise<void>,
): Promise<void> {
  const place = join(folder, `c${++clusters}`);
  mkdirSync(place);
  const cluster = await Cluster.start(place, kinds, flags);
  try {
    await cluster.leader();
    for (let i = 0; i < keys; i++) await cluster.ctl('put', `key${i}`, `${SOUND}-${i}`);
    await cluster.agreed();
    const damaged = cluster.members.at(-1)!;
    await damaged.stop();
    damage(damaged);
    await look(cluster, damaged);
  } finally {
    await cluster.end();
  }
}

function damage(member: ClusterMember): void {
  const file = join(member.dataDir, 'member/snap', member.kind === 'etcd' ? 'db' : 'keelson.mdb');
  const bytes = readFileSync(file);
  let found = 0;
  for (let at = bytes.indexOf(SOUND); at >= 0; at = bytes.indexOf(SOUND, at + 1)) {
    bytes.write(ROTTEN, at);
    found++;
  }
  assert.ok(found >= keys, `${found} values in ${file}`);
  writeFileSync(file, bytes);
}

/** Its CORRUPT alarm, on every member; what clients are told then. */
async function alarmOf(cluster: Cluster, damaged: ClusterMember): Promise<void> {
  const id = await cluster.idOf(damaged);
  // How many spaces stand there is Go's choice, made at each build.
  const expected = new RegExp(`memberID:${BigInt(`0x${id}`)} +alarm:CORRUPT`);
  for (const member of cluster.members) {
    await until(`${expected} on ${member.name}`, 30_000, async () => {
      const list = await ctl([member.endpoint], 'alarm', 'list');
      return expected.test(list);
    });
    const client = [member.endpoint];
    assert.match(await ctl(client, 'get', 'key0'), /-value?-0/);
    for (const words of [
      ['put', 'key0', 'x'],
      ['del', 'key0'],
      ['lease', 'grant', '60'],
      ['compaction', '3'],
    ]) {
      await assert.rejects(ctl(client, ...words), /etcdserver: corrupt cluster/, words.join(' '));
    }
    const health = await fetch(`http://${member.endpoint}/health`);
    assert.deepEqual([health.status, await health.text()], [503, '{"health":"false","reason":"ALARM CORRUPT"}\n']);
    const ready = await fetch(`http://${member.endpoint}/readyz`);
    assert.equal(ready.status, 503);
    assert.match(await ready.text(), /\[-\]data_corruption failed: alarm activated: CORRUPT/);
    assert.match(await ctl(client, 'endpoint', 'status', '-w', 'json'), expected);
    // etcd counts how often it was raised.
    const metric = `etcd_debugging_server_alarms{alarm_type="CORRUPT",server_id="${id}"} `;
    const lines = (await member.metrics()).split('\n').map(sortLabels);
    const isUp = lines.some((line) => line.startsWith(metric) && Number(line.slice(metric.length)) > 0);
    assert.ok(isUp, metric);
  }
}

function sortLabels(line: string): string {
  return line.replace(/\{(.*)\}/, (_, labels: string) => `{${labels.split(',').sort().join(',')}}`);
}

const mixes: readonly (readonly Kind[])[] = [
  ['keelson', 'keelson', 'keelson'],
  ['etcd', 'etcd', 'keelson'],
  ['keelson', 'keelson', 'etcd'],
];

describe('a member that differs', { timeout: 400_000 }, () => {
  for (const kinds of mixes) {
    it(`is found by the periodic check: ${kinds}`, async () => {
      await withDamage(kinds, ['--corrupt-check-time=1s'], async (cluster, damaged) => {
        await cluster.restart(damaged);
        await alarmOf(cluster, damaged);
      });
    });

    it(`is found at a compaction: ${kinds}`, async () => {
      const flags = ['--feature-gates=CompactHashCheck=true', '--compact-hash-check-time=1s'];
      await withDamage(kinds, flags, async (cluster, damaged) => {
        await cluster.restart(damaged);
        await ctl([cluster.members[0]!.endpoint], 'compaction', '10', '--physical');
        await alarmOf(cluster, damaged);
      });
    });

    it(`does not start where it looks before: ${kinds}`, async () => {
      await withDamage(kinds, ['--feature-gates=InitialCorruptCheck=true'], async (cluster, damaged) => {
        await assert.rejects(cluster.restart(damaged));
        assert.match(damaged.log(), /found data inconsistency with peers/);
        assert.match(damaged.log(), /found different hash values from remote peer/);
        assert.notEqual((await damaged.exited).code, 0);
        // The others go on.
        await ctl([cluster.members[0]!.endpoint], 'put', 'key0', 'x');
      });
    });
  }

  it('equal members pass all three checks', async () => {
    const place = join(folder, `c${++clusters}`);
    mkdirSync(place);
    const gates = '--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true';
    const flags = [gates, '--compact-hash-check-time=1s', '--corrupt-check-time=1s'];
    const cluster = await Cluster.start(place, ['keelson', 'etcd', 'keelson'], flags);
    try {
      for (let i = 0; i < keys; i++) await cluster.ctl('put', `key${i}`, `${SOUND}-${i}`);
      const restarted = cluster.members[2]!;
      await restarted.stop();
      await cluster.restart(restarted);
      await cluster.ctl('compaction', '9', '--physical');
      assert.match(restarted.log(), /initial corruption checking passed; no corruption/);
      const leader = await cluster.leader();
      for (const line of ['finished peer corruption check', 'successfully checked hash on whole cluster']) {
        await until(line, 30_000, () => leader.log().includes(line));
      }
      assert.equal(await cluster.ctl('alarm', 'list'), '');
    } finally {
      await cluster.end();
    }
  });
});
