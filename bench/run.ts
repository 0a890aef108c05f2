// Runs one load scenario against etcd and keelson in turn and prints medians and ratios.
// It is not the load generator (that is keelson-bench, test-e2e/peers/harness) and judges nothing: goals are in DESIGN.md.
// Both servers get fresh data, free loopback ports, the same flags, and never run at the same time; the order flips with
// every round, so that a machine that grows slower does not favour one of them.
//
//   node bench/run.ts SCENARIO [-n ROUNDS] [--duration 20s] [--keys N] [--a PROGRAM] [--b PROGRAM] [--dir DIR] [--json]

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const bin: string = join(process.env['KEELSON_CACHE'] ?? join(homedir(), '.cache', 'keelson'), 'bin');
const serverFlags: readonly string[] = [
  '--quota-backend-bytes=8589934592',
  '--auto-compaction-mode=revision',
  '--auto-compaction-retention=100000',
  '--log-level=warn',
];

type Measurement = Readonly<Record<string, number | string>>;

type Server = Readonly<{ name: string; program: string }>;

type Running = Readonly<{ process: ChildProcess; pid: number; port: number; directory: string; readyMs: number }>;

type Scenario = Readonly<{
  what: string;
  keys: number;
  /** Load this many keys before measuring. */
  load: boolean;
  run: (server: Server, running: Running, options: Options) => Promise<Measurement>;
}>;

type Options = Readonly<{ duration: string; keys: number; directory: string }>;

function bench(running: Running, args: readonly string[]): Measurement {
  const all = ['-endpoint', `127.0.0.1:${running.port}`, '-pid', `${running.pid}`, ...args];
  // A run with failed requests exits 1 and still prints its line; without a line it is our failure.
  try {
    return JSON.parse(execFileSync(join(bin, 'keelson-bench'), all, { encoding: 'utf8' })) as Measurement;
  } catch (error) {
    const line = (error as { stdout?: string }).stdout ?? '';
    if (line.startsWith('{')) return JSON.parse(line) as Measurement;
    throw error;
  }
}

const timed = (options: Options, ...args: string[]): string[] => [
  ...args,
  '-duration',
  options.duration,
  '-keys',
  `${options.keys}`,
];

const scenarios: Readonly<Record<string, Scenario>> = {
  put: {
    what: 'durable puts, 20 connections x 50 streams, 36 B keys, 256 B values',
    keys: 1_000_000,
    load: false,
    run: async (_server, running, options) => bench(running, timed(options, '-mode', 'put')),
  },
  get: {
    what: 'linearizable gets, 20 connections x 50 streams',
    keys: 100_000,
    load: true,
    run: async (_server, running, options) => bench(running, timed(options, '-mode', 'get')),
  },
  onekey: {
    what: 'one client, one put at a time',
    keys: 100_000,
    load: false,
    run: async (_server, running, options) => bench(running, timed(options, '-mode', 'onekey')),
  },
  page: {
    what: 'pages of 500 with count, walking a listing of all keys',
    keys: 1_000_000,
    load: true,
    run: async (_server, running, options) =>
      bench(running, timed(options, '-mode', 'page', '-clients', '1', '-conns-streams', '1')),
  },
  rangestream: {
    what: 'RangeStream of all keys',
    keys: 100_000,
    load: true,
    run: async (_server, running, options) =>
      bench(running, ['-mode', 'rangestream', '-repeat', '10', '-keys', `${options.keys}`]),
  },
  watch: {
    what: '1,000 watchers on one prefix',
    keys: 1_000,
    load: false,
    run: async (_server, running, options) =>
      bench(running, timed(options, '-mode', 'watch', '-watchers', '1000', '-clients', '4', '-conns-streams', '10')),
  },
  'idle-watch': {
    what: '100,000 watchers that nothing happens to',
    keys: 100_000,
    load: false,
    run: async (_server, running) =>
      bench(running, [
        ...['-mode', 'idle-watch', '-watchers', '100000', '-clients', '10'],
        ...['-conns-streams', '10', '-duration', '3s', '-keys', '100000'],
      ]),
  },
  restart: {
    what: 'anonymous memory with all keys loaded, time to the first read after a restart, memory then',
    keys: 1_000_000,
    load: true,
    run: restart,
  },
};

/** Stops the loaded server and starts it again on the same data. */
async function restart(server: Server, running: Running, options: Options): Promise<Measurement> {
  const loaded = memory(running.pid);
  await stop(running);
  const again = await start(server, running.directory, running.port);
  const first = bench(again, [
    ...['-mode', 'get', '-total', '1', '-clients', '1', '-conns-streams', '1', '-keys', `${options.keys}`],
  ]);
  const after = memory(again.pid);
  await stop(again);
  return {
    restart_ms: again.readyMs,
    loaded_rss_anon_mb: loaded['RssAnon'] ?? 0,
    loaded_rss_file_mb: loaded['RssFile'] ?? 0,
    restarted_rss_anon_mb: after['RssAnon'] ?? 0,
    restarted_rss_file_mb: after['RssFile'] ?? 0,
    errors: first['errors'] ?? 0,
  };
}

function memory(pid: number): Record<string, number> {
  const status = execFileSync('cat', [`/proc/${pid}/status`], { encoding: 'utf8' });
  const found: Record<string, number> = {};
  for (const [, name, kib] of status.matchAll(/^(RssAnon|RssFile):\s+(\d+) kB$/gm)) {
    if (name !== undefined) found[name] = Math.round(Number(kib) / 1024);
  }
  return found;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function start(server: Server, directory: string, port: number): Promise<Running> {
  const peerPort = await freePort();
  const client = `http://127.0.0.1:${port}`;
  const peer = `http://127.0.0.1:${peerPort}`;
  const args = [
    ...[
      '--name',
      'default',
      '--data-dir',
      directory,
      '--listen-client-urls',
      client,
      '--advertise-client-urls',
      client,
    ],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `default=${peer}`],
    ...serverFlags,
  ];
  const startedAt = performance.now();
  const log = openSync(`${directory}.log`, 'a');
  const child = spawn(server.program, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  if (child.pid === undefined) throw new Error(`cannot start ${server.program}`);
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${server.name} ended with ${child.exitCode}, see ${directory}.log`);
    if (performance.now() - startedAt > 60_000)
      throw new Error(`${server.name} is not healthy after a minute, see ${directory}.log`);
    try {
      // /health reads through raft: it is the first read.
      const answer = await fetch(`${client}/health`);
      if (answer.ok) break;
    } catch {
      // Not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const readyMs = Math.round(performance.now() - startedAt);
  return { process: child, pid: child.pid, port, directory, readyMs };
}

function ended(running: Running): boolean {
  return running.process.exitCode !== null || running.process.signalCode !== null;
}

async function stop(running: Running): Promise<void> {
  if (ended(running)) return;
  const exited = once(running.process, 'exit');
  running.process.kill('SIGTERM');
  await exited;
}

/** etcd's histogram of WAL syncs, as "count, mean, share at or below each bound". */
async function walFsync(running: Running): Promise<string> {
  const text = await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text();
  const name = 'etcd_disk_wal_fsync_duration_seconds';
  const value = (pattern: string): number =>
    Number(text.match(new RegExp(`^${name}${pattern} (\\S+)$`, 'm'))?.[1] ?? 0);
  const count = value('_count');
  if (count === 0) return 'no WAL syncs in /metrics';
  const shares = ['0.001', '0.002', '0.004', '0.008', '0.016'].map((bound) => {
    const share = (100 * value(`_bucket\\{le="${bound}"\\}`)) / count;
    return `<=${Number(bound) * 1000}ms ${share.toFixed(1)}%`;
  });
  return `${count} syncs, mean ${((1000 * value('_sum')) / count).toFixed(3)} ms, ${shares.join(', ')}`;
}

/** What one durable 4 KiB write costs on this disk now: without it the other figures say little. */
function diskFsync(directory: string): string {
  const path = join(directory, 'fsync-probe');
  const file = openSync(path, 'w');
  const block = Buffer.alloc(4096, 1);
  const times: number[] = [];
  for (let i = 0; i < 300; i++) {
    const before = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    times.push(performance.now() - before);
  }
  closeSync(file);
  rmSync(path);
  times.sort((a, b) => a - b);
  return `p50 ${times[150]?.toFixed(3)} ms, p99 ${times[297]?.toFixed(3)} ms`;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] ?? 0;
  return ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

async function round(scenario: Scenario, server: Server, options: Options): Promise<Measurement> {
  const directory = mkdtempSync(join(options.directory, `bench-${server.name}-`));
  const running = await start(server, directory, await freePort());
  try {
    if (scenario.load) {
      const loaded = bench(running, ['-mode', 'put', '-total', `${options.keys}`, '-keys', `${options.keys}`]);
      if (loaded['errors'] !== 0) throw new Error(`loading ${server.name} failed: ${loaded['first_error']}`);
    }
    const result = await scenario.run(server, running, options);
    const fsync = ended(running) ? 'the process that loaded is gone' : await walFsync(running);
    rmSync(`${directory}.log`);
    return { ...result, wal_fsync: fsync };
  } finally {
    await stop(running);
    rmSync(directory, { recursive: true, force: true });
  }
}

function printMedians(servers: readonly [Server, Server], results: ReadonlyMap<string, Measurement[]>): void {
  const [a, b] = servers;
  const of = (server: Server): Measurement[] => results.get(server.name) ?? [];
  const names = new Set([...of(a), ...of(b)].flatMap((m) => Object.keys(m)));
  console.log(
    `\n${'median'.padEnd(30)}${a.name.padStart(14)}${b.name.padStart(14)}${`${b.name}/${a.name}`.padStart(16)}`,
  );
  for (const name of names) {
    const medians = [a, b].map((server) => median(of(server).map((m) => Number(m[name] ?? 0))));
    const [x, y] = medians;
    if (x === undefined || y === undefined || Number.isNaN(x) || Number.isNaN(y)) continue;
    const ratio = x === 0 ? '-' : (y / x).toPrecision(3);
    const [left, right] = [x, y].map((v) => `${Number(v.toPrecision(4))}`.padStart(14));
    console.log(`${name.padEnd(30)}${left}${right}${ratio.padStart(16)}`);
  }
  for (const server of servers) {
    for (const m of of(server)) console.log(`${server.name} WAL: ${m['wal_fsync']}`);
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', short: 'n', default: '3' },
      duration: { type: 'string', default: '20s' },
      keys: { type: 'string' },
      a: { type: 'string', default: join(bin, 'etcd') },
      b: { type: 'string', default: join(import.meta.dirname, '..', 'bin', 'keelson') },
      dir: { type: 'string', default: tmpdir() },
      json: { type: 'boolean', default: false },
    },
  });
  const scenario = scenarios[positionals[0] ?? ''];
  if (scenario === undefined) {
    for (const [name, s] of Object.entries(scenarios)) console.error(`${name.padEnd(12)} ${s.what}`);
    process.exit(2);
  }
  const servers: readonly [Server, Server] = [
    { name: 'etcd', program: values.a },
    { name: values.b.endsWith('etcd') ? 'etcd-again' : 'keelson', program: values.b },
  ];
  execFileSync(join(import.meta.dirname, '..', 'test-e2e', 'peers', 'build.sh'), ['etcd', 'tools'], {
    stdio: 'inherit',
  });
  const options: Options = {
    duration: values.duration,
    keys: Number(values.keys ?? scenario.keys),
    directory: values.dir,
  };
  console.log(`${positionals[0]}: ${scenario.what}; ${options.keys} keys, ${values.rounds} rounds`);
  console.log(`fdatasync of 4 KiB in ${options.directory}: ${diskFsync(options.directory)}`);
  const results = new Map<string, Measurement[]>(servers.map((server) => [server.name, []]));
  for (let i = 0; i < Number(values.rounds); i++) {
    for (const server of i % 2 === 0 ? servers : servers.toReversed()) {
      const measured = await round(scenario, server, options);
      results.get(server.name)?.push(measured);
      console.log(values.json ? JSON.stringify({ server: server.name, ...measured }) : summary(server, measured));
    }
  }
  printMedians(servers, results);
}

function summary(server: Server, m: Measurement): string {
  const shown = ['per_second', 'events_per_second', 'keys_per_second', 'p50_ms', 'p99_ms', 'p999_ms', 'restart_ms'];
  const parts = [...shown, 'server_cpu_us_per_request', 'server_rss_anon_mb', 'errors', 'first_error']
    .filter((name) => m[name] !== undefined)
    .map((name) => `${name} ${m[name]}`);
  return `${server.name.padEnd(10)} ${parts.join(', ')}`;
}

await main();
