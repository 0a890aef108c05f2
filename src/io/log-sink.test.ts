// Goal: every line arrives, and a reader that stops never stops the writer. Method: files, a child with a piped stderr that is
// not read for a while, and a closed pipe.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openLogSink } from './log-sink.ts';

/** A writer that waits for its reader would wait for ever. */
const timeout = 60_000;
const url = JSON.stringify(new URL('./log-sink.ts', import.meta.url).href);

/** Node gives its children sockets as pipes; `viaCat` puts a shell and a real pipe between, read after a line on stdin. */
function child(body: string, viaCat: boolean = false): ReturnType<typeof spawn> {
  const source = `import { openLogSink } from ${url}; const sink = openLogSink(['stderr']); ${body}`;
  if (viaCat) {
    const command =
      '{ { "$0" --input-type=module -e "$1" 2>&3 >&4 </dev/null; } 3>&1 | { read gate <&5; cat >&2; }; } 4>&1 5<&0';
    return spawn('sh', ['-c', command, process.execPath, source], { stdio: ['pipe', 'pipe', 'pipe'] });
  }
  return spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'pipe'] });
}

describe('log sink', () => {
  it('appends to files', () => {
    const dir = mkdtempSync(join(tmpdir(), 'keelson-log-'));
    const path = join(dir, 'log');
    for (const line of ['a\n', 'b\n']) openLogSink([path]).write(line);
    assert.equal(readFileSync(path, 'utf8'), 'a\nb\n');
    rmSync(dir, { recursive: true });
  });

  for (const viaCat of [false, true]) {
    it(`drops and counts when the reader of a ${viaCat ? 'pipe' : 'socket'} stops, and goes on when it returns`, {
      timeout,
    }, async (t) => {
      const writer = child(
        `const line = 'x'.repeat(1023) + '\\n';
         for (let i = 0; i < 4000; i++) sink.write(line);
         console.log('written');
         setTimeout(() => { sink.flush(); process.exit(0); }, 1500);`,
        viaCat,
      );
      t.after(() => writer.kill('SIGKILL'));
      // Nobody reads before 4 MB are written: a writer that waits for its reader never gets here.
      await once(writer.stdout!, 'data');
      writer.stdin?.write('read\n');
      let output = '';
      for await (const chunk of writer.stderr!) output += chunk;
      const lines = output.trimEnd().split('\n');
      const last = JSON.parse(lines.at(-1)!) as { msg: string; count: number };
      assert.match(last.msg, /dropped/);
      assert.equal(lines.length - 1 + last.count, 4000);
      for (const line of lines.slice(0, -1)) assert.equal(line.length, 1023);
    });
  }

  it('gives up at exit after a bounded time, and outlives a closed pipe', { timeout }, async (t) => {
    const stuck = child(`
      for (let i = 0; i < 200; i++) sink.write('x'.repeat(1023) + '\\n');
      const start = performance.now(); sink.flush(); console.log(performance.now() - start); process.exit(3);`);
    t.after(() => stuck.kill('SIGKILL'));
    let shown = '';
    stuck.stdout!.on('data', (text) => (shown += text));
    const code = await new Promise((resolve) => stuck.on('exit', resolve));
    assert.equal(code, 3);
    assert.ok(Number(shown) >= 900, `gave up after ${shown} ms`);
    stuck.stderr!.destroy();

    const orphan = child(
      `setTimeout(() => { for (let i = 0; i < 100; i++) sink.write('x\\n'); sink.flush(); process.exit(4); }, 300);`,
    );
    orphan.stderr!.destroy();
    assert.equal(await new Promise((resolve) => orphan.on('exit', resolve)), 4);
  });
});
