// A cross-check of the unary figures of bench/run.ts by a client that nobody here has written: nghttp2's h2load posts one gRPC body over and
// over, to etcd and to keelson in turn, and both are asked in /metrics whether every call was answered OK. One key, one body: h2load knows
// no more, so these figures are about the way of a request, not about storage.
//
//   node bench/h2load.ts [-n ROUNDS] [--requests 100000] [--connections 20] [--streams 50]        (apt-get install nghttp2-client)

import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PutRequest, RangeRequest } from '../src/proto/kv-schema.ts';
import { encode } from '../src/proto/message.ts';
import { freePorts } from '../src/testing/free-port.ts';
import { loneMemberFlags } from '../src/testing/peer-programs.ts';
import { Program, repository, scratchFolder, serverFile } from '../test-e2e/program.ts';
import { sumOf } from '../test-e2e/store.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', short: 'n', default: '3' },
    requests: { type: 'string', default: '100000' },
    connections: { type: 'string', default: '20' },
    streams: { type: 'string', default: '50' },
  },
});
const requestCount = Number(values.requests);

const key: Buffer = Buffer.alloc(36, 'k');
const bodies: Readonly<Record<'Put' | 'Range', Buffer>> = {
  Put: encode(PutRequest, { key, value: Buffer.alloc(256, 'v') }),
  Range: encode(RangeRequest, { key }),
};
type Method = keyof typeof bodies;

type Name = 'etcd' | 'keelson';

interface Figures {
  readonly perSecond: number;
  readonly cpuUs: number;
}

/** User and system time of the process, in us. */
function cpuUs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const usPerTick = 10_000;
  return (Number(fields[11]) + Number(fields[12])) * usPerTick;
}

async function handledOk(endpoint: string, method: Method): Promise<number> {
  const text = await (await fetch(`http://${endpoint}/metrics`)).text();
  return sumOf(text, 'grpc_server_handled_total', { grpc_code: 'OK', grpc_method: method });
}

/** Requests a second, as h2load tells. */
function load(endpoint: string, method: Method, bodyFile: string, count: number): number {
  const output = execFileSync(
    'h2load',
    [
      ...['-n', `${count}`, '-c', values.connections, '-m', values.streams, '-d', bodyFile],
      ...['-H', 'content-type: application/grpc', '-H', 'te: trailers'],
      `http://${endpoint}/etcdserverpb.KV/${method}`,
    ],
    { encoding: 'utf8' },
  );
  const perSecond = /finished in [^,]+, ([0-9.]+) req\/s/.exec(output)?.[1];
  if (perSecond === undefined) throw new Error(output);
  return Number(perSecond);
}

async function measure(program: Program, endpoint: string, method: Method, bodyFile: string): Promise<Figures> {
  // Code is compiled and caches are warm, in both.
  load(endpoint, method, bodyFile, Math.ceil(requestCount / 5));
  const okBefore = await handledOk(endpoint, method);
  const cpuBefore = cpuUs(program.pid);
  const perSecond = load(endpoint, method, bodyFile, requestCount);
  const cpu = cpuUs(program.pid) - cpuBefore;
  const answered = (await handledOk(endpoint, method)) - okBefore;
  if (answered !== requestCount) throw new Error(`${answered} of ${requestCount} calls of ${method} were answered OK`);
  return { perSecond, cpuUs: cpu / requestCount };
}

async function round(name: Name, folder: string): Promise<Record<Method, Figures>> {
  const [client, peer] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`);
  const program = new Program({
    name,
    file: serverFile(name),
    args: [
      ...loneMemberFlags('m1', join(folder, `${name}-data`), `http://${client}`, `http://${peer}`),
      '--auto-compaction-mode=revision',
      '--auto-compaction-retention=10000',
    ],
    folder,
  });
  try {
    await program.says();
    const figures = {} as Record<Method, Figures>;
    for (const method of ['Put', 'Range'] as const) {
      const body = bodies[method];
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(body.length, 1);
      const file = join(folder, `${method}.grpc`);
      writeFileSync(file, Buffer.concat([prefix, body]));
      figures[method] = await measure(program, client!, method, file);
    }
    return figures;
  } finally {
    await program.stop();
  }
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

async function main(): Promise<void> {
  if (spawnSync('h2load', ['--version']).error !== undefined) {
    console.log('skipped: h2load is not installed (apt-get install nghttp2-client)');
    return;
  }
  execFileSync(join(repository, 'test-e2e/peers/build.sh'), ['etcd'], { stdio: 'inherit' });
  const results: Record<Name, Record<Method, Figures>[]> = { etcd: [], keelson: [] };
  for (let i = 0; i < Number(values.rounds); i++) {
    const order: readonly Name[] = i % 2 === 0 ? ['etcd', 'keelson'] : ['keelson', 'etcd'];
    for (const name of order) {
      const scratch = scratchFolder('h2load');
      try {
        results[name].push(await round(name, scratch.folder));
      } finally {
        scratch.remove();
      }
    }
  }
  const shape = `${requestCount} requests, ${values.connections} connections x ${values.streams} streams`;
  console.log(`h2load: ${shape}, medians of ${values.rounds}`);
  for (const method of ['Put', 'Range'] as const) {
    const of = (name: Name, figure: keyof Figures): number => median(results[name].map((run) => run[method][figure]));
    for (const name of ['etcd', 'keelson'] as const) {
      const perSecond = Math.round(of(name, 'perSecond'));
      console.log(
        `${method.padEnd(6)} ${name.padEnd(8)} ${perSecond} req/s, ${of(name, 'cpuUs').toFixed(1)} us CPU a request`,
      );
    }
    const ratio = of('etcd', 'cpuUs') / of('keelson', 'cpuUs');
    console.log(
      `${method.padEnd(6)} ratio    ${(of('keelson', 'perSecond') / of('etcd', 'perSecond')).toFixed(2)} by rate, ${ratio.toFixed(2)} by CPU`,
    );
  }
}

await main();
