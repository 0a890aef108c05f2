// A program that checks a store by a client of its own, says PASS or FAIL of each check and ends with "N passed, 0 failed".

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { Program, scratchFolder } from './program.ts';
import { Store } from './store.ts';

export interface ClientChecks {
  readonly name: string;
  readonly file: string;
  /** Of a store on that endpoint. */
  readonly args: (endpoint: string) => readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** At least so many pass. */
  readonly count: number;
  readonly timeoutMs: number;
  /** When it takes longer. */
  readonly signal: NodeJS.Signals;
}

/** Runs the checks against a fresh store. */
export async function passClientChecks(t: TestContext, checks: ClientChecks): Promise<void> {
  const { name, file, env, count } = checks;
  const scratch = scratchFolder(name);
  const store = await Store.create(scratch.folder);
  await store.start();
  const args = [...checks.args(store.endpoint)];
  const program = new Program({ name, file, args, folder: scratch.folder, ...(env === undefined ? {} : { env }) });
  const timer = setTimeout(() => void program.stop(checks.signal), checks.timeoutMs);
  try {
    // A store that falls over would let every further check wait for its own timeout.
    await Promise.race([program.exited, store.exited]);
    const output = program.output();
    t.diagnostic(output.trim().split('\n').at(-1)!);
    const failures = output.split('\n').filter((line) => line.startsWith('FAIL'));
    assert.deepEqual(failures, [], store.log().slice(-3000));
    const summary = /^(\d+) passed, 0 failed$/m.exec(output);
    assert.ok(summary !== null && Number(summary[1]) >= count, `${output}\n${store.log().slice(-3000)}`);
    const status = await store.stop();
    if (!store.isEtcd) assert.equal(status.code, 0);
  } finally {
    clearTimeout(timer);
    await program.stop('SIGKILL');
    await store.kill();
    scratch.remove();
  }
}
