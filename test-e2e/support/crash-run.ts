// One directory that is crashed again and again: rounds of start, load, end and check, with what is known carried from one to the
// next. How a round ends (a signal at a random moment, a failpoint, a full disk) is the test's part.

import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom } from '../../src/io/random.ts';
import { EtcdClient, expectOk } from './etcd-client.ts';
import { KeyspaceModel } from './keyspace-model.ts';
import { drawKeys, LoadGenerator, type LoadOptions } from './load-generator.ts';
import { checkRecovered, type Recovered } from './recovery-check.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './server-process.ts';
import { WriteLog } from './write-log.ts';

export interface RoundOptions {
  /** Ends the server in the midst of the load; default: SIGKILL after a random time. */
  readonly strike?: (server: ServerProcess, client: EtcdClient) => Promise<void>;
  readonly load?: Partial<LoadOptions>;
  /** Starts that die on their way before the one that is checked. */
  readonly deadStarts?: number;
  /** False: without the second restart that compares the hash alone. */
  readonly checksAgain?: boolean;
}

const keyCount = 160;

export class CrashRun {
  directory: string;
  walDir: string | undefined;
  readonly random: SeededRandom;
  readonly model: KeyspaceModel = new KeyspaceModel();
  readonly leases: Set<bigint> = new Set();
  server: ServerProcess | null = null;
  rounds = 0;
  private readonly keys: string[];
  private id = 0;
  private acknowledged = 0;
  private unknown = 0;
  private revisionsNew = 0;
  private compactions = 0;
  private failed = false;
  private maxStartMs = 0;
  /** Of the next starts, beside random flags. */
  env: Readonly<Record<string, string>> = {};
  private address = '';

  constructor(seed: number) {
    this.directory = temporaryDirectory('crash');
    this.random = new SeededRandom(seed);
    this.keys = drawKeys(this.random, keyCount);
  }

  /** Loads, strikes, restarts and checks. */
  async round(options: RoundOptions = {}): Promise<Recovered> {
    try {
      return await this.tryRound(options);
    } catch (error) {
      this.failed = true;
      const where = `round ${this.rounds}, data in ${this.directory}`;
      const output = this.server?.output.slice(-3000) ?? '';
      throw new Error(`${where}: ${error instanceof Error ? error.stack : String(error)}\n${output}`);
    }
  }

  private async tryRound(options: RoundOptions): Promise<Recovered> {
    const log = await this.loadAndStrike(options);
    await this.dieStarting(options.deadStarts ?? (this.random.below(4) === 0 ? 1 + this.random.below(2) : 0));
    const recovered = await this.restartAndCheck(log);
    if (options.checksAgain !== false) await this.checkAgain(recovered);
    this.rounds++;
    return recovered;
  }

  /** A server on the directory that serves, with tuning flags that make its background work frequent. */
  async start(env: Readonly<Record<string, string>> = this.env): Promise<string> {
    const { random } = this;
    const flags: string[] = [];
    if (random.below(2) === 0) flags.push(`--backend-batch-interval=${1 + random.below(30)}ms`);
    if (random.below(3) === 0) flags.push(`--backend-batch-limit=${10 + random.below(300)}`);
    if (random.below(3) === 0) flags.push(`--snapshot-catchup-entries=${1 + random.below(200)}`);
    if (random.below(2) === 0) flags.push(`--max-wals=${1 + random.below(2)}`);
    // A killed process loses no page of the system's cache: without syncs the same promises hold, at many times the rate.
    if (random.below(3) === 0) flags.push('--unsafe-no-fsync');
    this.server = ServerProcess.start({
      dataDir: this.directory,
      flags,
      env,
      ...(this.walDir === undefined ? {} : { walDir: this.walDir }),
    });
    this.address = await this.server.whenReady();
    this.maxStartMs = Math.max(this.maxStartMs, performance.now() - this.server.startedMs);
    return this.address;
  }

  /** One load until the server has gone; on the server that the round before has left running, if it did. */
  async loadAndStrike(options: RoundOptions): Promise<WriteLog> {
    const { random } = this;
    const isRunning = this.server !== null && this.server.exit === null;
    const address = isRunning ? this.address : await this.start();
    const server = this.server!;
    const log = new WriteLog(this.model, this.leases);
    const client = new EtcdClient(address);
    await this.putSentinel(client);
    log.see(this.model.revision);
    const generator = new LoadGenerator({
      address,
      log,
      random,
      keys: this.keys,
      nextId: () => ++this.id,
      connections: 3,
      inFlight: 4 + random.below(40),
      valueBytesMax: [300, 3000, 300_000][random.below(3)]!,
      largeEach: 10,
      defragments: random.below(3) === 0,
      compacts: true,
      ...options.load,
    });
    if (options.strike !== undefined) await options.strike(server, client);
    else {
      await sleep(random.below(random.below(3) === 0 ? 1200 : 500));
      server.child.kill('SIGKILL');
    }
    await server.exited;
    await generator.end();
    client.close();
    if (generator.failure !== null) throw generator.failure;
    this.acknowledged += log.acknowledged.length;
    this.unknown += log.writes.length - log.acknowledged.length;
    if (log.compactRevision > this.model.compactRevision) this.compactions++;
    return log;
  }

  /** The key that is always there: a keyspace without live keys has hash rules of its own. */
  private async putSentinel(client: EtcdClient): Promise<void> {
    if (this.model.keys.size > 0) return;
    const value = Buffer.from('always');
    const answer = expectOk(await client.put({ key: Buffer.from(this.keys[0]!), value }));
    const main = answer.header!.revision;
    this.model.apply(main, this.model.changesOf({ kind: 'put', key: this.keys[0]!, value, lease: 0n }, main));
  }

  private async dieStarting(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      const server = ServerProcess.start({
        dataDir: this.directory,
        ...(this.walDir === undefined ? {} : { walDir: this.walDir }),
      });
      await sleep(this.random.below(400));
      await server.stop('SIGKILL');
    }
  }

  async restartAndCheck(log: WriteLog): Promise<Recovered> {
    const address = await this.start();
    const recovered = await checkRecovered(address, this.model, log, this.leases, this.random);
    this.revisionsNew += recovered.revisionsNew;
    return recovered;
  }

  /** Nothing has happened since: another restart, after a clean or a dirty end, must show the same hash. */
  private async checkAgain(recovered: Recovered): Promise<void> {
    const isClean = this.random.below(2) === 0;
    const exit = await this.server!.stop(isClean ? 'SIGTERM' : 'SIGKILL');
    if (isClean && exit.code !== 0) throw new Error(`SIGTERM ended with ${JSON.stringify(exit)}`);
    const address = await this.start();
    const client = new EtcdClient(address);
    const again = expectOk(await client.hashKv(recovered.revision));
    client.close();
    const same = again.hash === recovered.hash && again.header!.revision === recovered.revision;
    if (same && again.compactRevision === recovered.compactRevision) return;
    throw new Error(
      `HashKV after another restart: ${again.hash} at ${again.header!.revision}, compacted ${again.compactRevision}; ` +
        `before it ${recovered.hash} at ${recovered.revision}, compacted ${recovered.compactRevision}`,
    );
  }

  summary(): string {
    return (
      `${this.rounds} rounds: ${this.acknowledged} acknowledged calls, ${this.unknown} without an answer or refused, ` +
      `${this.revisionsNew} revisions, ${this.compactions} rounds with compactions, ${this.model.keys.size} keys, ` +
      `${this.leases.size} leases, slowest start ${Math.round(this.maxStartMs)} ms`
    );
  }

  end(): void {
    this.server?.child.kill('SIGKILL');
    if (!this.failed) removeDirectory(this.directory);
  }
}
