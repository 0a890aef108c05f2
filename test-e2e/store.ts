// The store under a peer test: keelson as a process on free loopback ports with its own data directory, and etcdctl on it.
// KEELSON_E2E_STORE=etcd runs the same test on real etcd: what fails there is wrong in the test, not in keelson.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePorts } from '../src/testing/free-port.ts';
import { loneMemberFlags, peerBinaries } from '../src/testing/peer-programs.ts';
import { type ExitStatus, Program, serverFile } from './program.ts';

const run = promisify(execFile);

export interface KeyRevision {
  readonly key: string;
  readonly modRevision: number;
}

export class Store {
  readonly endpoint: string;
  readonly isEtcd: boolean;
  readonly #folder: string;
  readonly #args: readonly string[];
  #program: Program | null = null;
  #starts = 0;

  private constructor(folder: string, clientPort: number, peerPort: number, flags: readonly string[]) {
    this.isEtcd = process.env['KEELSON_E2E_STORE'] === 'etcd';
    this.#folder = folder;
    this.endpoint = `127.0.0.1:${clientPort}`;
    const client = `http://${this.endpoint}`;
    const peer = `http://127.0.0.1:${peerPort}`;
    this.#args = [...loneMemberFlags('m1', join(folder, 'data'), client, peer), ...flags];
  }

  static async create(folder: string, flags: readonly string[] = []): Promise<Store> {
    const [clientPort, peerPort] = await freePorts(2);
    return new Store(folder, clientPort!, peerPort!, flags);
  }

  /** Starts it on the same data; resolves when it says that it serves. Returns what that took, in ms. */
  async start(): Promise<number> {
    const began = performance.now();
    const name = `store-${++this.#starts}`;
    const file = serverFile(this.isEtcd ? 'etcd' : 'keelson');
    const program = new Program({ name, file, args: this.#args, folder: this.#folder });
    this.#program = program;
    await program.says();
    return performance.now() - began;
  }

  /** When the present run ends, for whatever reason. */
  get exited(): Promise<ExitStatus> {
    if (this.#program === null) throw new Error('never started');
    return this.#program.exited;
  }

  /** kill -9: nothing is flushed, drained or said. */
  async kill(): Promise<void> {
    await this.#program?.stop('SIGKILL');
  }

  async stop(): Promise<ExitStatus> {
    if (this.#program === null) throw new Error('never started');
    if (this.#program.ended) throw new Error(`it ended by itself: ${this.log().slice(-2000)}`);
    return this.#program.stop();
  }

  /** The log of the present run. */
  log(): string {
    return this.#program?.log() ?? '';
  }

  /** etcdctl with the arguments; its standard output. */
  async ctl(...args: string[]): Promise<string> {
    const all = ['--endpoints', this.endpoint, '--command-timeout', '20s', ...args];
    const { stdout } = await run(join(peerBinaries, 'etcdctl'), all, { maxBuffer: 256 * 1024 * 1024, env: {} });
    return stdout;
  }

  /** Every key of the prefix with its revision, read linearizably from the store itself. */
  async keys(prefix: string): Promise<KeyRevision[]> {
    const answer = JSON.parse(await this.ctl('get', '--prefix', prefix, '--keys-only', '-w', 'json')) as {
      kvs?: { key: string; mod_revision: number }[];
    };
    return (answer.kvs ?? []).map((kv) => ({
      key: Buffer.from(kv.key, 'base64').toString(),
      modRevision: kv.mod_revision,
    }));
  }

  /** The lease of each key of the prefix that has one. (Without values, etcd 3.7 and keelson answer no leases.) */
  async leases(prefix: string): Promise<string[]> {
    const text = await this.ctl('get', '--prefix', prefix, '-w', 'json');
    return [...text.matchAll(/"lease":(\d+)/g)].map((match) => match[1]!);
  }

  async revision(): Promise<number> {
    const answer = JSON.parse(await this.ctl('get', 'no-such-key', '-w', 'json')) as { header: { revision: number } };
    return answer.header.revision;
  }

  /** How many calls of a gRPC method the store has answered OK, by its own /metrics. */
  async handled(method: string): Promise<number> {
    const response = await fetch(`http://${this.endpoint}/metrics`);
    if (!response.ok) throw new Error(`/metrics: ${response.status}`);
    return sumOf(await response.text(), 'grpc_server_handled_total', { grpc_code: 'OK', grpc_method: method });
  }
}

/** The sum of a family's samples that carry all these labels, from Prometheus' text format. */
export function sumOf(text: string, family: string, labels: Readonly<Record<string, string>>): number {
  let sum = 0;
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${family}{`) && !line.startsWith(`${family} `)) continue;
    if (Object.entries(labels).every(([name, value]) => line.includes(`${name}="${value}"`))) {
      sum += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
  }
  return sum;
}
