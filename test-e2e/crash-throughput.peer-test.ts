// Goal: kill -9 at full throughput, with index merges, compactions and a defragmentation under way, leaves rows and index that say
// the same. Method: the Go load generator puts at its full rate, SIGKILL at a random moment, a restart killed on its way; then
// the whole history is watched, folded into a model, and compared with lists, counts and HashKV. Which puts were acknowledged is
// not known here: that is crash.test.ts's part, at the rate of a JavaScript client.
//
//   KEELSON_KILLS=20 KEELSON_SEED=7 node --test test-e2e/crash-throughput.peer-test.ts

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom } from '../src/io/random.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { changeOfEvent, KeyspaceModel } from './support/keyspace-model.ts';
import { checkRecovered } from './support/recovery-check.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';
import { WriteLog } from './support/write-log.ts';

const kills = Number(process.env['KEELSON_KILLS'] ?? 4);
const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);
const keyCount = 40_000;

function startLoad(address: string): ChildProcess {
  const shape = [
    '-mode',
    'put',
    '-keys',
    String(keyCount),
    '-val-size',
    '24',
    '-clients',
    '10',
    '-conns-streams',
    '30',
  ];
  return spawn(path.join(peerBinaries, 'keelson-bench'), ['-endpoint', address, '-duration', '60s', ...shape], {
    stdio: 'ignore',
  });
}

/** Compacts to revisions that the model knows, and defragments, until the server has gone. */
async function disturb(
  server: ServerProcess,
  client: EtcdClient,
  model: KeyspaceModel,
  random: SeededRandom,
): Promise<number> {
  let compacted = model.compactRevision;
  while (server.exit === null) {
    await sleep(random.below(800));
    const revision = compacted + random.below(Math.max(1, model.revision - compacted));
    if (revision > compacted && revision > 1) {
      await client.compact(revision);
      compacted = revision;
    } else if (random.below(3) === 0) await client.defragment();
  }
  return compacted;
}

test(`${kills} kills at full throughput leave rows and index that agree (KEELSON_SEED=${seed})`, async (context) => {
  const random = new SeededRandom(seed);
  const directory = temporaryDirectory('throughput');
  const model = new KeyspaceModel();
  for (let i = 0; i < kills; i++) {
    const server = ServerProcess.start({ dataDir: directory });
    const address = await server.whenReady();
    const side = new EtcdClient(address);
    const load = startLoad(address);
    const disturbed = disturb(server, side, model, random);
    await sleep(1000 + random.below(3000));
    await server.stop('SIGKILL');
    load.kill('SIGKILL');
    const compacted = await disturbed;
    side.close();
    const dying = ServerProcess.start({ dataDir: directory });
    await sleep(random.below(600));
    await dying.stop('SIGKILL');
    const again = ServerProcess.start({ dataDir: directory });
    const newAddress = await again.whenReady();
    const client = new EtcdClient(newAddress);
    const revision = expectOk(await client.hashKv(0)).header!.revision;
    const events = revision > model.revision ? await client.history(model.revision + 1, revision) : [];
    client.close();
    for (const event of events) model.apply(event.kv!.modRevision, [changeOfEvent(event)]);
    assert.equal(model.revision, revision);
    const log = new WriteLog(model, []);
    // The last compaction may have been cut off by the kill.
    for (let tried = model.compactRevision; tried <= compacted; tried++) log.maybeCompactRevisions.add(tried);
    await checkRecovered(newAddress, model, log, new Set(), random);
    context.diagnostic(`revision ${revision}, ${model.keys.size} keys, compacted ${model.compactRevision}`);
    await again.stop(random.below(2) === 0 ? 'SIGTERM' : 'SIGKILL');
  }
  removeDirectory(directory);
});
