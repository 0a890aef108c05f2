// Goal: a full store under a real kube-apiserver behaves as etcd's: at --quota-backend-bytes writes fail with etcd's exact error,
// reads, watches and deletes go on, the alarm outlives a crash, and compact + defrag + disarm brings writes back.
// Method: 16 MiB of quota (etcd's smallest sensible figure in bytes), filled by ConfigMaps of 100 KiB through the API server.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { KubeApiServer } from './kube-apiserver.ts';
import { describeAnswer, inParallel, type KubeClient, type Watch } from './kube-client.ts';
import { scratchFolder, sleep, until } from './program.ts';
import { Store } from './store.ts';

const QUOTA_BYTES = 16_777_216;
const OBJECT_BYTES = 100 * 1024;
const NAMESPACE = 'full';
const CONFIG_MAPS = `/api/v1/namespaces/${NAMESPACE}/configmaps`;
const REGISTRY = `/registry/configmaps/${NAMESPACE}/`;
const NO_SPACE = 'etcdserver: mvcc: database space exceeded';

const body = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name },
  data: { text: name.padEnd(OBJECT_BYTES, 'x') },
});

describe('the quota under kube-apiserver', { timeout: 300_000 }, () => {
  const scratch = scratchFolder('quota');
  const created: string[] = [];
  let store: Store;
  let api: KubeApiServer;
  let client: KubeClient;
  let watch: Watch;

  const status = async (): Promise<{ dbSize: number; dbSizeInUse?: number; errors?: string[] }> => {
    const [entry] = JSON.parse(await store.ctl('endpoint', 'status', '-w', 'json')) as [{ Status: { dbSize: number } }];
    return entry.Status;
  };

  before(async () => {
    store = await Store.create(scratch.folder, [`--quota-backend-bytes=${QUOTA_BYTES}`]);
    api = await KubeApiServer.create(scratch.folder, store.endpoint);
    client = api.client;
    await store.start();
    await api.start();
    await client.object('POST', '/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: NAMESPACE },
    });
    watch = client.watch(CONFIG_MAPS, (await client.list(CONFIG_MAPS)).metadata.resourceVersion);
  });

  after(async () => {
    watch?.stop();
    client?.close();
    await api?.kill();
    await store?.kill();
    scratch.remove();
  });

  it('refuses writes at the bound, with etcd’s error', async (t) => {
    const most = (2 * QUOTA_BYTES) / OBJECT_BYTES;
    let refused = '';
    for (let i = 0; refused === '' && i < most; i++) {
      const answer = await client.send('POST', CONFIG_MAPS, body(`map-${i}`));
      if (answer.status === 201) created.push(`map-${i}`);
      else refused = describeAnswer(answer);
    }
    const { dbSize } = await status();
    t.diagnostic(`${created.length} objects of ${OBJECT_BYTES} bytes fitted; size ${dbSize} at the refusal`);
    assert.match(refused, new RegExp(`^500 .*"message":"${NO_SPACE}"`));
    assert.ok(created.length > most / 8, `full after ${created.length} objects`);
    assert.ok(dbSize > QUOTA_BYTES * 0.9 && dbSize < QUOTA_BYTES * 1.5, `size ${dbSize}`);

    assert.match(await store.ctl('alarm', 'list'), /^memberID:\d+ +alarm:NOSPACE\s*$/);
    await assert.rejects(store.ctl('put', 'a', 'b'), new RegExp(`Error: ${NO_SPACE}`));
    await assert.rejects(
      store.ctl('lease', 'grant', '60'),
      new RegExp(`Error: failed to grant lease \\(${NO_SPACE}\\)`),
    );
    const { errors } = await status();
    assert.equal(errors?.length, 1);
    assert.match(errors[0]!, /alarm:NOSPACE/);
  });

  it('reports the alarm on /health', async () => {
    const response = await fetch(`http://${store.endpoint}/health`);
    assert.equal(response.status, 503);
    assert.deepEqual(await response.json(), { health: 'false', reason: 'ALARM NOSPACE' });
  });

  const checkReads = async (): Promise<void> => {
    const names = (await client.list(CONFIG_MAPS)).items.map((item) => item.metadata.name).sort();
    assert.deepEqual(
      names,
      [...created, 'kube-root-ca.crt'].filter((name) => names.includes(name) || name !== 'kube-root-ca.crt').sort(),
    );
    assert.deepEqual((await store.keys(REGISTRY)).map(({ key }) => key.slice(REGISTRY.length)).sort(), names);
    assert.equal((await client.send('GET', `${CONFIG_MAPS}/${created[0]!}`)).status, 200);
  };

  it('goes on reading, also after a crash', async () => {
    await checkReads();
    await store.kill();
    await store.start();
    await until(
      'the API server reads again',
      30_000,
      async () => (await client.send('GET', CONFIG_MAPS)).status === 200,
    );
    await checkReads();
    assert.match(await store.ctl('alarm', 'list'), /alarm:NOSPACE/);
    const answer = await client.send('POST', CONFIG_MAPS, body('after-the-crash'));
    assert.match(describeAnswer(answer), new RegExp(NO_SPACE));
  });

  it('goes on deleting and telling watchers', async () => {
    const doomed = created.splice(0, Math.floor(created.length * 0.8));
    await inParallel(doomed.length, 8, (i) => client.object('DELETE', `${CONFIG_MAPS}/${doomed[i]!}`));
    await checkReads();
    await until('the watch has seen them', 10_000, () => {
      const seen = watch.events.filter(({ type }) => type === 'DELETED').map(({ name }) => name);
      return doomed.every((name) => seen.includes(name));
    });
    assert.equal(watch.failure, null);
    // Space alone does not lift the alarm.
    const answer = await client.send('POST', CONFIG_MAPS, body('too-early'));
    assert.match(describeAnswer(answer), new RegExp(NO_SPACE));
  });

  it('takes writes again after compact, defrag and disarm', async (t) => {
    const before = await status();
    await store.ctl('compact', String(await store.revision()), '--physical');
    assert.match(await store.ctl('defrag'), /^Finished defragmenting etcd member\[/);
    const after = await status();
    t.diagnostic(`size ${before.dbSize} before, ${after.dbSize} after (in use ${after.dbSizeInUse})`);
    assert.ok(after.dbSize < before.dbSize / 2, 'defrag gives the space back');
    const early = await client.send('POST', CONFIG_MAPS, body('still-too-early'));
    assert.match(describeAnswer(early), new RegExp(NO_SPACE));
    assert.match(await store.ctl('alarm', 'disarm'), /alarm:NOSPACE/);
    assert.equal((await store.ctl('alarm', 'list')).trim(), '');
    for (let i = 0; i < 40; i++) {
      await client.object('POST', CONFIG_MAPS, body(`again-${i}`));
      created.push(`again-${i}`);
    }
    await checkReads();
    assert.equal((await status()).errors, undefined);
    const health = await fetch(`http://${store.endpoint}/health`).catch(() => null);
    assert.deepEqual(await health?.json(), { health: 'true', reason: '' });
  });

  it('raises the alarm again when it is full again', async () => {
    let last = '';
    for (let i = 0; last === '' && i < 400; i++) {
      const answer = await client.send('POST', CONFIG_MAPS, body(`more-${i}`));
      if (answer.status !== 201) last = describeAnswer(answer);
    }
    assert.match(last, new RegExp(NO_SPACE));
    await sleep(100);
    assert.match(await store.ctl('alarm', 'list'), /alarm:NOSPACE/);
  });
});
