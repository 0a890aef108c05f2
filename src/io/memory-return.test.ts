// Goal: memory is given back when a burst is over, and never again and again for what is in use. Method: made-up sizes; then a process
// of its own, with buffers of all sizes that nobody holds.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MemoryReturn } from './memory-return.ts';

const MB = 2 ** 20;

class Bench {
  resident = 100 * MB;
  used = 100 * MB;
  readonly done: string[] = [];
  readonly memory: MemoryReturn = new MemoryReturn({
    worthBytes: 256 * MB,
    residentBytes: () => this.resident,
    collect: () => void this.done.push('collect'),
    trim: () => {
      this.done.push('trim');
      this.resident = this.used;
    },
  });

  look(times: number): string[] {
    for (let i = 0; i < times; i++) this.memory.look();
    return this.done.splice(0);
  }
}

test('once, when it has stopped to grow', () => {
  const bench = new Bench();
  assert.deepEqual(bench.look(20), []);
  for (let i = 0; i < 10; i++) {
    bench.resident += 200 * MB;
    assert.deepEqual(bench.look(1), [], 'it grows');
  }
  assert.deepEqual(bench.look(1), ['collect']);
  assert.deepEqual(bench.look(1), ['trim']);
  assert.equal(bench.resident, bench.used);
  assert.deepEqual(bench.look(50), []);
});

test('what is in use is asked for once, and again when there is far more', () => {
  const bench = new Bench();
  bench.resident = bench.used = 1000 * MB;
  assert.deepEqual(bench.look(100), ['collect', 'trim']);
  bench.resident = bench.used = 2200 * MB;
  assert.deepEqual(bench.look(100), []);
  bench.resident = 2300 * MB;
  assert.deepEqual(bench.look(100), ['collect', 'trim']);
});

test('of a process: a gigabyte that nobody holds is gone', () => {
  const module = fileURLToPath(new URL('./memory-return.ts', import.meta.url));
  const script = `
    const { memoryReturnOfProcess } = await import(${JSON.stringify(module)});
    const memory = memoryReturnOfProcess(2 ** 28);
    const rss = () => process.memoryUsage().rss;
    const least = rss();
    let kept = Array.from({ length: 20_000 }, (_, i) => Buffer.allocUnsafeSlow(10_000 + (i % 100) * 1000).fill(1));
    const small = kept.filter((_, i) => i % 50 === 0);
    const full = rss();
    kept = null;
    const isGone = () => rss() < least + (full - least) / 4;
    for (let i = 0; i < 100 && !isGone(); i++) {
      memory.look();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    console.log(full > 2 ** 30, isGone(), small.length);
  `;
  const args = ['--expose-gc', '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.equal(stdout, 'true true 400\n', stderr);
});
