// What it costs the clients of a leader that a new member catches up by a snapshot: puts at a fixed rate, quiet and while a learner
// takes a database of about a gigabyte; etcd and keelson in turn, three members and the learner sharing this machine.
//
//   node bench/catch-up.ts [-n ROUNDS] [--megabytes 1000] [--rate 1000]

import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from '../test-e2e/cluster.ts';
import { repository, until } from '../test-e2e/program.ts';

const run = promisify(execFile);
const valueBytes = 12 * 1024;
const flags: readonly string[] = [
  '--quota-backend-bytes=8589934592',
  '--snapshot-count=10000',
  '--snapshot-catchup-entries=1000',
];

interface Result {
  readonly quietP99Ms: number;
  readonly busyP99Ms: number;
  readonly catchUpSeconds: number;
  readonly errors: number;
}

async function load(member: ClusterMember, args: readonly string[]): Promise<Record<string, number>> {
  const all = ['-endpoint', member.endpoint, '-pid', String(member.pid), ...args];
  const { stdout } = await run(join(peerBinaries, 'keelson-bench'), all);
  return JSON.parse(stdout) as Record<string, number>;
}

async function measure(kind: Kind, megabytes: number, rate: number): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), `keelson-catch-up-${kind}-`));
  const cluster = await Cluster.start(folder, [kind, kind, kind], flags);
  try {
    const leader = await cluster.leader();
    const count = Math.ceil((megabytes * 1e6) / valueBytes);
    const fill = ['-mode', 'put', '-total', `${count}`, '-keys', `${count}`, '-val-size', `${valueBytes}`];
    await load(leader, [...fill, '-prefix', 'fill/', '-clients', '4', '-conns-streams', '10']);
    await load(leader, ['-mode', 'put', '-total', '10000', '-keys', '10000']);
    const puts = ['-mode', 'mixed', '-rate', `${rate}`, '-get-rate', '1', '-keys', '10000'];
    const quiet = await load(leader, [...puts, '-duration', '15s']);
    const busyLoad = load(leader, [...puts, '-duration', '40s']);
    const began = performance.now();
    const learner = await cluster.add(kind, { learner: true });
    await until('the learner has what the leader has', 120_000, async () => {
      const [own, leaders] = await Promise.all([learner.status(), leader.status()]);
      return own.appliedIndex >= leaders.appliedIndex - rate;
    });
    const catchUpSeconds = (performance.now() - began) / 1000;
    const busy = await busyLoad;
    return {
      quietP99Ms: quiet['put_p99_ms']!,
      busyP99Ms: busy['put_p99_ms']!,
      catchUpSeconds,
      errors: quiet['errors']! + busy['errors']!,
    };
  } finally {
    await cluster.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', short: 'n', default: '1' },
    megabytes: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '1000' },
    only: { type: 'string' },
  },
});
execFileSync(join(repository, 'test-e2e/peers/build.sh'), ['etcd', 'tools'], { stdio: 'inherit' });
const kinds: Kind[] = values.only === undefined ? ['etcd', 'keelson'] : [values.only as Kind];
for (let i = 0; i < Number(values.rounds); i++) {
  for (const kind of i % 2 === 0 ? kinds : kinds.toReversed()) {
    const result = await measure(kind, Number(values.megabytes), Number(values.rate));
    const ratio = (result.busyP99Ms / result.quietP99Ms).toFixed(2);
    console.log(
      `${kind.padEnd(8)} put p99 quiet ${result.quietP99Ms} ms, while a member catches up ${result.busyP99Ms} ms: ${ratio}x; ` +
        `caught up after ${result.catchUpSeconds.toFixed(1)} s, ${result.errors} errors`,
    );
  }
}
