// The same load on three members of etcd and of keelson in turn, on loopback, sharing this machine's cores; prints medians and ratios.
// One round starts both clusters anew, one after the other. CPU is what all three processes used together, a request. run.ts is the same
// for a member alone, and the load generator's flags are there.
//
//   node bench/cluster.ts [put-leader put-follower get-leader get-follower onekey ...] [-n ROUNDS] [--duration 15s] [--keys N]

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from '../test-e2e/cluster.ts';
import { repository } from '../test-e2e/program.ts';

const flags: readonly string[] = [
  '--quota-backend-bytes=8589934592',
  '--auto-compaction-mode=revision',
  '--auto-compaction-retention=100000',
];

interface Scenario {
  readonly what: string;
  readonly at: 'leader' | 'follower';
  readonly args: readonly string[];
}

const scenarios: Readonly<Record<string, Scenario>> = {
  'put-leader': { what: 'puts at the leader, 20 x 50 streams', at: 'leader', args: ['-mode', 'put'] },
  'put-follower': { what: 'puts at a follower, 20 x 50 streams', at: 'follower', args: ['-mode', 'put'] },
  'get-leader': { what: 'linearizable gets at the leader', at: 'leader', args: ['-mode', 'get'] },
  'get-follower': { what: 'linearizable gets at a follower', at: 'follower', args: ['-mode', 'get'] },
  onekey: { what: 'one client, one put at a time, at the leader', at: 'leader', args: ['-mode', 'onekey'] },
};

interface Result {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: number;
  /** Microseconds of all members' CPU, a request. */
  readonly cpuUs: number;
}

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

function cpuSeconds(members: readonly ClusterMember[]): number {
  let ticks = 0;
  for (const { pid } of members) {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / ticksPerSecond;
}

function load(member: ClusterMember, args: readonly string[]): Record<string, number> {
  const all = ['-endpoint', member.endpoint, '-pid', String(member.pid), ...args];
  return JSON.parse(execFileSync(join(peerBinaries, 'keelson-bench'), all, { encoding: 'utf8' })) as Record<
    string,
    number
  >;
}

async function measure(kind: Kind, names: readonly string[], duration: string, keys: number): Promise<Result[]> {
  const folder = mkdtempSync(join(tmpdir(), `keelson-bench-${kind}-`));
  const cluster = await Cluster.start(folder, [kind, kind, kind], flags);
  const results: Result[] = [];
  try {
    const leader = await cluster.leader();
    const follower = cluster.members.find((member) => member !== leader)!;
    if (names.some((name) => name.startsWith('get')))
      load(leader, ['-mode', 'put', '-total', `${keys}`, '-keys', `${keys}`]);
    for (const name of names) {
      const { at, args } = scenarios[name]!;
      const before = cpuSeconds(cluster.members);
      const result = load(at === 'leader' ? leader : follower, [...args, '-duration', duration, '-keys', `${keys}`]);
      const cpu = cpuSeconds(cluster.members) - before;
      const requests = result['requests'] ?? result['per_second']! * result['seconds']!;
      results.push({
        perSecond: result['per_second']!,
        p50Ms: result['p50_ms']!,
        p99Ms: result['p99_ms']!,
        errors: result['errors']!,
        cpuUs: (cpu / requests) * 1e6,
      });
    }
  } finally {
    await cluster.end();
    rmSync(folder, { recursive: true, force: true });
  }
  return results;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', short: 'n', default: '3' },
      duration: { type: 'string', default: '15s' },
      keys: { type: 'string', default: '100000' },
      only: { type: 'string' },
    },
  });
  const names = positionals.length > 0 ? positionals : Object.keys(scenarios);
  if (names.some((name) => scenarios[name] === undefined)) {
    for (const [name, { what }] of Object.entries(scenarios)) console.error(`${name.padEnd(14)} ${what}`);
    process.exit(2);
  }
  execFileSync(join(repository, 'test-e2e/peers/build.sh'), ['etcd', 'tools'], { stdio: 'inherit' });
  const kinds: Kind[] = values.only === undefined ? ['etcd', 'keelson'] : [values.only as Kind];
  const all = new Map<Kind, Result[][]>(kinds.map((kind) => [kind, []]));
  for (let i = 0; i < Number(values.rounds); i++) {
    for (const kind of i % 2 === 0 ? kinds : kinds.toReversed()) {
      const results = await measure(kind, names, values.duration, Number(values.keys));
      all.get(kind)!.push(results);
      names.forEach((name, at) => {
        const { perSecond, p50Ms, p99Ms, cpuUs, errors } = results[at]!;
        const figures = `${perSecond.toFixed(0)}/s, p50 ${p50Ms} ms, p99 ${p99Ms} ms, ${cpuUs.toFixed(1)} us CPU`;
        console.log(`${kind.padEnd(8)} ${name.padEnd(14)} ${figures}, ${errors} errors`);
      });
    }
  }
  if (kinds.length < 2) return;
  console.log(`\n${'median of ratios keelson/etcd'.padEnd(32)}throughput      p50      p99      CPU`);
  names.forEach((name, at) => {
    const of = (kind: Kind, field: keyof Result): number => median(all.get(kind)!.map((round) => round[at]![field]));
    const ratio = (field: keyof Result): string => (of('keelson', field) / of('etcd', field)).toFixed(2).padStart(9);
    console.log(`${name.padEnd(32)}${ratio('perSecond')} ${ratio('p50Ms')}${ratio('p99Ms')}${ratio('cpuUs')}`);
  });
}

await main();
