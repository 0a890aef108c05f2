// A program under a peer test: started with an almost empty environment, its output in a file of the test's folder, ended by its
// pid and never outliving the test. Not a supervisor: what restarts is the test's decision.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { peerBinaries } from '../src/testing/peer-programs.ts';

export const repository: string = fileURLToPath(new URL('..', import.meta.url));

/** keelson of this checkout, or an etcd: `etcd`, `etcd-3.6`. */
export function serverFile(name: string): string {
  return name === 'keelson' ? join(repository, 'bin/keelson') : join(peerBinaries, name);
}

const READY = 'ready to serve client requests';

export interface ProgramOptions {
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  /** Output goes to NAME.log (stderr, and stdout too unless `splitOutput`: then NAME.out). Appended, so a restart keeps it. */
  readonly folder: string;
  readonly splitOutput?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

export class Program {
  readonly name: string;
  readonly exited: Promise<ExitStatus>;
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #outFile: string;

  constructor(options: ProgramOptions) {
    this.name = options.name;
    this.#logFile = join(options.folder, `${options.name}.log`);
    this.#outFile = options.splitOutput === true ? join(options.folder, `${options.name}.out`) : this.#logFile;
    const log = openSync(this.#logFile, 'a');
    const out = openSync(this.#outFile, 'a');
    const env = {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      HOME: options.folder,
      TMPDIR: tmpdir(),
      ...options.env,
    };
    this.#child = spawn(options.file, [...options.args], { stdio: ['ignore', out, log], env, cwd: options.folder });
    closeSync(log);
    closeSync(out);
    running.add(this.#child);
    this.exited = new Promise((resolve) => {
      this.#child.once('error', () => resolve({ code: null, signal: null }));
      this.#child.once('exit', (code, signal) => {
        running.delete(this.#child);
        resolve({ code, signal });
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined;
  }

  /** All that it has written to stderr so far (or to both). */
  log(): string {
    return readFileSync(this.#logFile, 'utf8');
  }

  output(): string {
    return readFileSync(this.#outFile, 'utf8');
  }

  /** Until a server's log says that it serves, or this. */
  async says(text: string = READY, timeoutMs: number = 30_000): Promise<void> {
    await until(`${this.name}: ${text}`, timeoutMs, () => {
      if (this.ended) throw new Hopeless(`${this.name} ended: ${this.log().slice(-3000)}`);
      return this.log().includes(text);
    });
  }

  /** Ends it; a program that does not follow SIGTERM is killed after the grace time, and that is an error. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs: number = 15_000): Promise<ExitStatus> {
    if (this.ended) return this.exited;
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), graceMs);
    const status = await this.exited;
    clearTimeout(timer);
    if (signal !== 'SIGKILL' && status.signal === 'SIGKILL') throw new Error(`${this.name} ignored ${signal}`);
    return status;
  }
}

export interface Scratch {
  readonly folder: string;
  /** Removes the folder, unless KEELSON_E2E_KEEP says to look at it. */
  remove(): void;
}

export function scratchFolder(name: string): Scratch {
  const folder = mkdtempSync(join(tmpdir(), `keelson-${name}-`));
  const remove = (): void => {
    if (process.env['KEELSON_E2E_KEEP'] !== undefined) console.log(`kept: ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  };
  return { folder, remove };
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What a probe throws when waiting is in vain. */
export class Hopeless extends Error {}

/** Polls until the probe gives something; its errors count as "not yet", the last of them is told. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | false> | T | false,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown = 'no answer yet';
  while (performance.now() < deadline) {
    try {
      const found = await probe();
      if (found !== false) return found;
    } catch (error) {
      if (error instanceof Hopeless) throw error;
      last = error;
    }
    await sleep(50);
  }
  throw new Error(`${what}: not within ${timeoutMs} ms; last: ${String(last)}`);
}
