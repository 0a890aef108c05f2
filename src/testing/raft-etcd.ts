// The process keelson-raft: etcd's RawNodes of a group, given many commands at once and read until all are answered. Built by
// test-e2e/peers/build.sh tools.

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** `deferred`: with what keelson defers on purpose deferred there, too (keelson-raft/deferral). `plain`: as it is. */
export type EtcdVariant = 'deferred' | 'plain';

export class RaftEtcd {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  #rest = '';
  #answers: string[] = [];
  #wanted = 0;
  #arrived: (() => void) | null = null;
  #ended = false;

  constructor(variant: EtcdVariant) {
    const cache = process.env['KEELSON_CACHE'] ?? join(homedir(), '.cache/keelson');
    const program = join(cache, 'bin', variant === 'plain' ? 'keelson-raft' : 'keelson-raft-deferred');
    if (!existsSync(program)) throw new Error(`${program} is missing: test-e2e/peers/build.sh tools`);
    this.#process = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process.stdout.setEncoding('latin1');
    this.#process.stdout.on('data', (text: string) => this.#take(text));
    // A broken pipe shows as the end of the answers.
    this.#process.stdin.on('error', () => {});
    this.#process.once('close', () => {
      this.#ended = true;
      this.#arrived?.();
    });
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) this.#answers.push(line);
    if (this.#answers.length >= this.#wanted) this.#arrived?.();
  }

  /** One answer a command, in order. */
  async exchange(commands: readonly string[]): Promise<readonly string[]> {
    this.#wanted = commands.length;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#arrived = resolve;
    this.#process.stdin.write(`${commands.join('\n')}\n`);
    await promise;
    const answers = this.#answers;
    this.#answers = [];
    if (this.#ended) throw new Error(`keelson-raft ended after ${answers.length} of ${commands.length} answers`);
    return answers;
  }

  close(): void {
    this.#process.stdin.end();
  }
}
