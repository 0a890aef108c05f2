// Goal: the registry of failpoints follows gofail's contract and costs nothing when off. Method: terms set by text, a control
// whose panic throws, a worker over the same shared memory, and a real process that must die of SIGKILL.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  armFailpoints,
  clearFailpoint,
  disarmFailpoints,
  failpoint,
  failpointNames,
  failpointStatus,
  listFailpoints,
  setFailpoint,
  setFailpoints,
} from './failpoint.ts';

class Panic extends Error {}
let nextRandom = 0;
const control = {
  panic(name: string): never {
    throw new Panic(name);
  },
  random: (): number => nextRandom,
};

describe('failpoint', () => {
  let shared: SharedArrayBuffer;
  beforeEach(() => {
    shared = armFailpoints(control);
  });
  afterEach(() => disarmFailpoints());

  it('does nothing when unarmed or off', () => {
    failpoint('raftBeforeSave');
    disarmFailpoints();
    failpoint('raftBeforeSave');
  });

  it('panics while on, and not after off or clear', () => {
    assert.equal(setFailpoint('raftBeforeSave', 'panic'), null);
    assert.throws(() => failpoint('raftBeforeSave'), Panic);
    failpoint('raftAfterSave');
    assert.equal(setFailpoint('raftBeforeSave', 'off'), null);
    failpoint('raftBeforeSave');
    assert.equal(setFailpoint('raftBeforeSave', 'panic("text")'), null);
    assert.equal(clearFailpoint('raftBeforeSave'), null);
    failpoint('raftBeforeSave');
  });

  it('sleeps as long as either form says', (t) => {
    const sleep = t.mock.method(Atomics, 'wait', () => 'timed-out');
    for (const term of ['sleep("60ms")', 'sleep(60)', 'sleep("0.06s")']) {
      assert.equal(setFailpoint('beforeCommit', term), null);
      failpoint('beforeCommit');
      assert.equal(sleep.mock.calls.at(-1)?.arguments[3], 60, term);
    }
    assert.equal(sleep.mock.callCount(), 3);
  });

  it('counts hits and chances', () => {
    setFailpoint('afterCommit', '2*panic');
    assert.throws(() => failpoint('afterCommit'), Panic);
    assert.throws(() => failpoint('afterCommit'), Panic);
    failpoint('afterCommit');
    assert.deepEqual(failpointStatus('afterCommit'), { term: '2*panic', hits: 3 });
    setFailpoint('afterCommit', '50.0%panic');
    nextRandom = 0.6;
    failpoint('afterCommit');
    nextRandom = 0.4;
    assert.throws(() => failpoint('afterCommit'), Panic);
  });

  it('refuses unknown names and terms', () => {
    assert.equal(setFailpoint('nope', 'panic'), 'failpoint: failpoint does not exist');
    for (const bad of ['', 'boom', 'sleep', 'sleep("x")', 'sleep(-1)', '200%panic', 'return(1)', 'panic->off'])
      assert.match(setFailpoint('beforeCommit', bad) ?? '', /could not parse/, bad);
    assert.equal(clearFailpoint('beforeCommit'), 'failpoint: failpoint is disabled');
    assert.equal(clearFailpoint('nope'), 'failpoint: failpoint does not exist');
    assert.equal(failpointStatus('nope'), 'failpoint: failpoint does not exist');
    failpoint('beforeCommit');
  });

  it('lists every name once and sets several', () => {
    assert.equal(setFailpoints('beforeCommit=panic; afterCommit=sleep("1s")'), null);
    const lines = listFailpoints().trimEnd().split('\n');
    assert.equal(lines.length, failpointNames.length);
    assert.deepEqual(lines, [...lines].sort());
    assert.ok(lines.includes('beforeCommit=panic'));
    assert.ok(lines.includes('afterCommit=sleep("1s")'));
    assert.ok(lines.includes('raftBeforeSave='));
    assert.match(setFailpoints('beforeCommit') ?? '', /fail to parse/);
  });

  it('reaches a worker thread through the shared memory', async () => {
    const module = JSON.stringify(new URL('./failpoint.ts', import.meta.url).href);
    const worker = new Worker(
      `import { parentPort, workerData } from 'node:worker_threads';
       import { armFailpoints, failpoint } from ${module};
       armFailpoints({ panic(name) { throw new Error('panic ' + name); }, random: () => 0 }, workerData);
       parentPort.on('message', () => {
         try { failpoint('beforeCommit'); parentPort.postMessage('passed'); } catch (error) { parentPort.postMessage(error.message); }
       });`,
      { eval: true, workerData: shared, execArgv: ['--input-type=module'] },
    );
    const ask = (): Promise<string> =>
      new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
        worker.postMessage('go');
      });
    assert.equal(await ask(), 'passed');
    setFailpoint('beforeCommit', 'panic');
    assert.equal(await ask(), 'panic beforeCommit');
    await worker.terminate();
  });

  it('ends a real process at once, from a worker too', async () => {
    const failpointUrl = JSON.stringify(new URL('./failpoint.ts', import.meta.url).href);
    const ioUrl = JSON.stringify(new URL('../io/failpoint-http.ts', import.meta.url).href);
    const inMain = `
      import { failpoint } from ${failpointUrl};
      import { startFailpoints } from ${ioUrl};
      process.on('exit', () => console.log('exit handler ran'));
      await startFailpoints(process.env);
      failpoint('raftBeforeSave');
      console.log('survived');`;
    const inWorker = `
      import { Worker } from 'node:worker_threads';
      import { startFailpoints } from ${ioUrl};
      process.on('exit', () => console.log('exit handler ran'));
      const session = await startFailpoints(process.env);
      new Worker(\`import { workerData } from 'node:worker_threads';
        import { armFailpoints, failpoint } from ${failpointUrl};
        import { processFailpointControl } from ${ioUrl};
        armFailpoints(processFailpointControl, workerData);
        failpoint('raftBeforeSave');\`, { eval: true, workerData: session.shared, execArgv: ['--input-type=module'] });
      setTimeout(() => console.log('survived'), 3000);`;
    for (const source of [inMain, inWorker]) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
        env: { GOFAIL_FAILPOINTS: 'raftBeforeSave=panic' },
      });
      let output = '';
      child.stdout.on('data', (chunk) => (output += chunk));
      child.stderr.on('data', (chunk) => (output += chunk));
      const signal = await new Promise((resolve) => child.on('close', (_code, name) => resolve(name)));
      assert.equal(signal, 'SIGKILL', output);
      assert.equal(output, 'panic: failpoint panic: raftBeforeSave\n');
    }
  });
});
