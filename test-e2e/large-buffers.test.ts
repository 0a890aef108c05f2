// Goal: large buffers that pass do not have the whole heap marked again and again, as they do by V8's defaults up to 14.7. Method: a
// script that makes buffers of 1.5 MB and keeps few beside a heap of a member's size, run with the flags that bin/keelson gives to node.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repository } from './program.ts';

const script = `
  import { constants, PerformanceObserver } from 'node:perf_hooks';
  let marked = 0;
  const observer = new PerformanceObserver((list) => {
    for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) marked++;
  });
  observer.observe({ entryTypes: ['gc'] });
  const heap = Array.from({ length: 200_000 }, (_, i) => ({ i, text: 'x' + i }));
  const kept = [];
  for (let i = 0; i < 2000; i++) {
    kept[i % 20] = Buffer.allocUnsafeSlow(1_500_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  console.log(marked, heap.length + kept.length);
`;

/** How many times the heap was marked. */
function marksWith(flags: readonly string[]): number {
  const args = [...flags, '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const [marks, kept] = stdout.split(' ').map(Number);
  assert.equal(kept, 200_020, stderr);
  return marks!;
}

test('buffers of 1.5 MB do not have the heap marked for every few of them', (t) => {
  const text = readFileSync(join(repository, 'bin/keelson'), 'utf8');
  const flags: readonly string[] = text.slice(text.indexOf('exec "$node"')).match(/--[a-z][^\s"]*/g) ?? [];
  assert.ok(flags.includes('--expose-gc'), 'the flags stand behind exec');
  const [marks, marksByDefault] = [marksWith(flags), marksWith([])];
  t.diagnostic(`${marks} times, ${marksByDefault} by default`);
  assert.ok(marks <= 6, `${marks} times for 2000 buffers`);
});
