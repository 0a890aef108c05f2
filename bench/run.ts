// Runs one load scenario against etcd and keelson in turn and prints medians and ratios.
// It is not the load generator (that is keelson-bench, test-e2e/peers/harness) and judges nothing: goals are in DESIGN.md.
// Both servers get fresh data, free loopback ports, the same flags, and never run at the same time; the order flips with
// every round, so that a machine that grows slower does not favour one of them.
//
//   node bench/run.ts SCENARIO [-n ROUNDS] [--duration 20s] [--keys N] [--a PROGRAM] [--b PROGRAM] [--dir DIR] [--json]

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fdatasyncSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { freePort } from '../src/testing/free-port.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';

const serverFlags: readonly string[] = [
  '--quota-backend-bytes=8589934592',
  '--auto-compaction-mode=revision',
  '--auto-compaction-retention=100000',
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
    return JSON.parse(execFileSync(join(peerBinaries, 'keelson-bench'), all, { encoding: 'utf8' })) as Measurement;
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
  kill: {
    what: 'kill -9 in the middle of puts at full speed, time to the first read after it, and its parts',
    keys: 1_000_000,
    load: true,
    run: killed,
  },
  tails: {
    what: 'puts and gets at a fixed rate: quiet, busy, while compactions run, while it is defragmented',
    keys: 1_000_000,
    load: true,
    run: tails,
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

/** Loads at full speed for the duration, then kills in the middle of it. */
async function killed(server: Server, running: Running, options: Options): Promise<Measurement> {
  const load = spawn(
    join(peerBinaries, 'keelson-bench'),
    [
      '-endpoint',
      `127.0.0.1:${running.port}`,
      ...timed({ ...options, duration: '10m' }, '-mode', 'put', '-order', 'uniform'),
    ],
    { stdio: 'ignore' },
  );
  const loadEnded = once(load, 'exit');
  await sleep(durationMs(options.duration));
  const exited = once(running.process, 'exit');
  running.process.kill('SIGKILL');
  load.kill('SIGKILL');
  await Promise.all([exited, loadEnded]);
  const logBytes = statSync(`${running.directory}.log`).size;
  const again = await start(server, running.directory, running.port, 'info');
  const lines = readFileSync(`${running.directory}.log`).subarray(logBytes).toString();
  const first = bench(again, [
    ...['-mode', 'get', '-total', '1', '-clients', '1', '-conns-streams', '1', '-keys', `${options.keys}`],
  ]);
  await stop(again);
  return { restart_ms: again.readyMs, ...startParts(lines), errors: first['errors'] ?? 0 };
}

/** What keelson's log tells of a start. etcd's tells no such parts. */
function startParts(lines: string): Measurement {
  const parts: Record<string, number> = {};
  const took = (fields: Record<string, unknown>): number => durationMs(String(fields['took']));
  for (const line of lines.split('\n')) {
    if (!line.startsWith('{')) continue;
    const fields = JSON.parse(line) as Record<string, unknown>;
    if (fields['msg'] === 'opened backend db' && fields['rows-indexed'] !== undefined) {
      parts['database_ms'] = took(fields);
      parts['database_rows_indexed'] = Number(fields['rows-indexed']);
    } else if (fields['msg'] === 'read the log') {
      parts['log_read_ms'] = took(fields);
      parts['log_entries'] = Number(fields['entry-count']);
    } else if (fields['msg'] === 'applied what the log had beyond the database') {
      parts['applied_ms'] = took(fields);
      parts['applied_entries'] = Number(fields['entry-count']);
    }
  }
  return parts;
}

/** As Go writes them: 2m, 1.5s, 20.1ms, 310µs. */
function durationMs(text: string): number {
  let ms = 0;
  for (const [, count, unit] of text.matchAll(/([\d.]+)(m|s|ms|µs|ns)(?![a-z])/g)) {
    ms += Number(count) * ({ m: 60_000, s: 1000, ms: 1, µs: 1e-3, ns: 1e-6 }[unit ?? 'ms'] ?? 1);
  }
  return Math.round(ms);
}

const tailRates = { quiet: { put: 500, get: 500 }, busy: { put: 4000, get: 2000 } } as const;

/** Latencies at the same rate on both servers, counted from when a request was due. Each phase loads for the duration. */
async function tails(_server: Server, running: Running, options: Options): Promise<Measurement> {
  const result: Record<string, number | string> = {};
  let errors = 0;
  const phase = async (
    name: string,
    rate: { put: number; get: number },
    beside: () => Promise<void>,
  ): Promise<void> => {
    const load = benchBeside(running, [
      ...timed(options, '-mode', 'mixed', '-order', 'uniform', '-warmup', '2s'),
      ...['-rate', `${rate.put}`, '-get-rate', `${rate.get}`],
    ]);
    let ended = false;
    void load.finally(() => {
      ended = true;
    });
    await sleep(2000);
    while (!ended) await beside();
    const measured = await load;
    errors += Number(measured['errors']);
    for (const kind of ['put', 'get']) {
      for (const field of ['p50_ms', 'p99_ms', 'p999_ms', 'max_ms']) {
        result[`${name}_${kind}_${field}`] = measured[`${kind}_${field}`] ?? 0;
      }
    }
  };
  const idle = (): Promise<void> => sleep(100);
  await phase('quiet', tailRates.quiet, idle);
  await phase('busy', tailRates.busy, idle);
  await phase('compact', tailRates.busy, async () => {
    const before = performance.now();
    await etcdctl(running, ['compaction', `${(await revisionOf(running)) - 5000}`, '--physical']);
    result['compaction_ms'] = Math.round(performance.now() - before);
    await sleep(2000);
  });
  let defrags = 0;
  await phase('defrag', tailRates.busy, async () => {
    // One, at the beginning: the rest of the phase shows what it leaves behind.
    if (defrags++ > 0) return idle();
    const before = performance.now();
    await etcdctl(running, ['defrag']);
    result['defrag_ms'] = Math.round(performance.now() - before);
  });
  return { ...result, errors };
}

/** keelson-bench while this process does something else. */
async function benchBeside(running: Running, args: readonly string[]): Promise<Measurement> {
  const all = ['-endpoint', `127.0.0.1:${running.port}`, '-pid', `${running.pid}`, ...args];
  const child = spawn(join(peerBinaries, 'keelson-bench'), all, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  await once(child, 'close');
  return JSON.parse(output) as Measurement;
}

async function etcdctl(running: Running, args: readonly string[]): Promise<string> {
  const all = ['--endpoints', `127.0.0.1:${running.port}`, '--command-timeout=120s', ...args];
  const child = spawn(join(peerBinaries, 'etcdctl'), all, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) throw new Error(`etcdctl ${args.join(' ')} ended with ${code}`);
  return output;
}

async function revisionOf(running: Running): Promise<number> {
  const found = /"revision":(\d+)/.exec(await etcdctl(running, ['get', 'none', '-w', 'json']));
  if (found === null) throw new Error('no revision in the answer of etcdctl');
  return Number(found[1]);
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function memory(pid: number): Record<string, number> {
  const status = execFileSync('cat', [`/proc/${pid}/status`], { encoding: 'utf8' });
  const found: Record<string, number> = {};
  for (const [, name, kib] of status.matchAll(/^(RssAnon|RssFile):\s+(\d+) kB$/gm)) {
    if (name !== undefined) found[name] = Math.round(Number(kib) / 1024);
  }
  return found;
}

async function start(server: Server, directory: string, port: number, logLevel = 'warn'): Promise<Running> {
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
    `--log-level=${logLevel}`,
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
      a: { type: 'string', default: join(peerBinaries, 'etcd') },
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
  for (const phase of ['quiet', 'busy', 'compact', 'defrag'])
    shown.push(`${phase}_put_p999_ms`, `${phase}_get_p999_ms`);
  const parts = [...shown, 'server_cpu_us_per_request', 'server_rss_anon_mb', 'errors', 'first_error']
    .filter((name) => m[name] !== undefined)
    .map((name) => `${name} ${m[name]}`);
  return `${server.name.padEnd(10)} ${parts.join(', ')}`;
}

await main();
