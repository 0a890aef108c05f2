// A real keelson server as a child process: started on a directory with a port of its own, watched by its log lines, ended by a
// signal. For the tests in test-e2e; nothing here knows requests (etcd-client.ts does).

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's launcher; KEELSON_BIN runs the same tests against another tree. */
export const keelsonBin: string =
  process.env['KEELSON_BIN'] ?? fileURLToPath(new URL('../../bin/keelson', import.meta.url));

const READY = 'ready to serve client requests';
/** A start replays at most what a test has written; beyond this something hangs. */
const startTimeoutMs = 30_000;
/** The end of one under load on a slow disk; beyond this something hangs. */
const stopMsMax = 60_000;

export interface LogLine {
  readonly level: string;
  readonly ts: string;
  readonly caller: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** How a process ended: `code` null when a signal ended it. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ServerOptions {
  readonly dataDir: string;
  readonly walDir?: string;
  readonly flags?: readonly string[];
  /** Added to PATH alone: a server must not depend on the environment of its tests. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Every server of this test process that is still alive, so that a failing test leaves none behind. */
const alive = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

export class ServerProcess {
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
  readonly startedMs: number = performance.now();
  exit: Exit | null = null;
  stdout = '';
  stderr = '';
  private readonly waiters: (() => void)[] = [];

  private constructor(child: ChildProcess) {
    this.child = child;
    alive.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.notify();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.notify();
    });
    // 'close' and not 'exit': all output has been read then.
    this.exited = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => {
        alive.delete(child);
        this.exit = { code, signal };
        this.notify();
        resolve(this.exit);
      });
    });
  }

  /** Starts `bin/keelson`, or a shell that becomes it, with these arguments alone. */
  static run(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    from: { readonly file?: string; readonly cwd?: string } = {},
  ): ServerProcess {
    const environment = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', ...env };
    const options = { env: environment, cwd: from.cwd ?? process.cwd() };
    return new ServerProcess(spawn(from.file ?? keelsonBin, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] }));
  }

  /** Starts a member on a port that the system chooses; whenReady() waits for it. */
  static start(options: ServerOptions): ServerProcess {
    const args = [
      `--data-dir=${options.dataDir}`,
      '--name=e2e',
      '--initial-cluster=e2e=http://localhost:2380',
      '--listen-client-urls=http://127.0.0.1:0',
      '--advertise-client-urls=http://127.0.0.1:2379',
      '--listen-peer-urls=http://127.0.0.1:0',
      ...(options.walDir === undefined ? [] : [`--wal-dir=${options.walDir}`]),
      ...(options.flags ?? []),
    ];
    return ServerProcess.run(args, options.env);
  }

  get pid(): number {
    return this.child.pid!;
  }

  get output(): string {
    return this.stdout + this.stderr;
  }

  private notify(): void {
    for (const waiter of this.waiters.splice(0)) waiter();
  }

  /** Resolves when `found` gives something; rejects when the process ends before, or in time. */
  async until<T>(what: string, found: () => T | undefined, timeoutMs: number = startTimeoutMs): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const value = found();
      if (value !== undefined) return value;
      if (this.exit !== null)
        throw new Error(`server ended before ${what}: ${JSON.stringify(this.exit)}\n${this.output}`);
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`no ${what} within ${timeoutMs} ms\n${this.output}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Waits until it serves; the client address. */
  async whenReady(): Promise<string> {
    const line = await this.until(READY, () => this.logLines().find((candidate) => candidate.msg === READY));
    const address = (line['addresses'] as string[] | undefined)?.[0];
    if (address === undefined) throw new Error(`the ready line names no address: ${JSON.stringify(line)}`);
    return address;
  }

  /** Complete lines of stdout and stderr that are JSON. */
  logLines(): LogLine[] {
    const lines: LogLine[] = [];
    for (const stream of [this.stdout, this.stderr]) {
      for (const text of stream.split('\n').slice(0, -1)) {
        if (text.startsWith('{')) lines.push(JSON.parse(text) as LogLine);
      }
    }
    return lines;
  }

  logLine(msg: string): LogLine | undefined {
    return this.logLines().find((line) => line.msg === msg);
  }

  /** What ended it, as its last words say. */
  fatalLine(): LogLine | undefined {
    return this.logLines().find((line) => line.level === 'fatal');
  }

  /** Sends the signal and waits for the end. */
  async stop(signal: NodeJS.Signals): Promise<Exit> {
    this.child.kill(signal);
    // One that hangs shows by its end, not by a test that never ends.
    const guard = setTimeout(() => this.child.kill('SIGKILL'), stopMsMax);
    const exit = await this.exited;
    clearTimeout(guard);
    return exit;
  }

  /** Anonymous memory in bytes. */
  rssAnonBytes(): number {
    const match = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'latin1'));
    return Number(match?.[1] ?? Number.NaN) * 1024;
  }
}

/** Processes whose parent is `pid`. */
export function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      // The name in parentheses may hold anything; the parent is the second field after it.
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid) children.push(Number(name));
    } catch {
      // It ended between the listing and the reading.
    }
  }
  return children;
}

export function temporaryDirectory(purpose: string): string {
  return mkdtempSync(path.join(tmpdir(), `keelson-${purpose}-`));
}

/** A test that failed keeps its directory (KEELSON_KEEP=1 keeps all). */
export function removeDirectory(directory: string): void {
  if (process.env['KEELSON_KEEP'] !== '1') rmSync(directory, { recursive: true, force: true });
}
