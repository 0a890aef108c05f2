// Goal: Kubernetes 1.37's storage layer, which lists by RangeStream, lives on keelson: its caches fill, its lists and watches are
// right, also across kill -9. Method: the API server for custom resources of 1.37.2 (test-e2e/peers/README.md says why not the
// whole one) beside a kube-apiserver 1.36.3 that it asks for authorization, both on one keelson; then once more without its watch
// cache, so that every list is a RangeStream and is held against the store's own keys.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { KubeApiServer } from './kube-apiserver.ts';
import { inParallel, type KubeClient } from './kube-client.ts';
import { compareViews, identities } from './object-views.ts';
import { Hopeless, Program, scratchFolder, sleep, until } from './program.ts';
import { Store, sumOf } from './store.ts';
import { defineWidgets, widgetsIn } from './widget.ts';
import { WriteLoad } from './write-load.ts';

const NAMESPACE = 'default';
const kind = widgetsIn(NAMESPACE);
const PREFIX = '/registry37';
const REGISTRY = `${PREFIX}/keelson.test/widgets/`;
const COUNT = 3000;
const WIDTH = 32;
const PAGE = 500;
const binary = 'apiextensions-apiserver-1.37.2';

describe('Kubernetes 1.37’s storage layer on keelson', { timeout: 400_000 }, () => {
  const scratch = scratchFolder('kube37');
  let store: Store;
  let core: KubeApiServer;
  let client: KubeClient;
  let port = 0;
  let server: Program;

  const start = async (...flags: string[]): Promise<number> => {
    const began = performance.now();
    server = new Program({
      name: 'apiextensions-apiserver',
      file: join(peerBinaries, binary),
      args: [
        `--etcd-servers=http://${store.endpoint}`,
        `--etcd-prefix=${PREFIX}`,
        '--etcd-compaction-interval=0',
        `--secure-port=${port}`,
        '--bind-address=127.0.0.1',
        `--cert-dir=${join(scratch.folder, 'kube', 'certs37')}`,
        `--kubeconfig=${core.kubeconfig}`,
        `--authentication-kubeconfig=${core.kubeconfig}`,
        `--authorization-kubeconfig=${core.kubeconfig}`,
        '--authentication-skip-lookup',
        '--v=4', // tells of a fallback from RangeStream
        ...flags,
      ],
      folder: scratch.folder,
    });
    await until('apiextensions-apiserver /readyz', 120_000, async () => {
      if (server.ended) throw new Hopeless(`apiextensions-apiserver ended: ${server.log().slice(-3000)}`);
      const answer = await client.send('GET', '/readyz?verbose');
      if (answer.status !== 200) throw new Error(answer.text);
      return true;
    });
    return performance.now() - began;
  };

  /** RangeStream calls that ended well, by the client's own count. */
  const streams = async (): Promise<number> => {
    const metrics = (await client.send('GET', '/metrics')).text;
    return sumOf(metrics, 'grpc_client_handled_total', { grpc_method: 'RangeStream', grpc_code: 'OK' });
  };

  before(async () => {
    store = await Store.create(scratch.folder);
    core = await KubeApiServer.create(scratch.folder, store.endpoint);
    [port] = (await freePorts(1)) as [number];
    client = core.client.at(port);
    await store.start();
    await core.start();
  });

  after(async () => {
    client?.close();
    core?.client.close();
    await server?.stop('SIGKILL');
    await core?.kill();
    await store?.kill();
    scratch.remove();
  });

  it('becomes ready', async (t) => {
    t.diagnostic(`ready after ${(await start()).toFixed(0)} ms`);
    await defineWidgets(client, kind);
  });

  it('serves thousands of custom resources', async (t) => {
    const began = performance.now();
    await inParallel(COUNT, WIDTH, (i) => client.object('POST', kind.path, kind.body(`widget-${i}`)));
    t.diagnostic(`${COUNT} created in ${(performance.now() - began).toFixed(0)} ms`);
    assert.equal(await compareViews(client, store, kind.path, REGISTRY), COUNT);
  });

  it('fills its cache by RangeStream', async (t) => {
    await server.stop('SIGKILL');
    const before = store.isEtcd ? 0 : await store.handled('RangeStream');
    await start();
    assert.equal(await compareViews(client, store, kind.path, REGISTRY), COUNT);
    const pages = await client.pages(kind.path, PAGE);
    assert.equal(pages.length, COUNT / PAGE);
    const handled = (await store.handled('RangeStream')) - before;
    t.diagnostic(`${handled} RangeStreams by the store's count, ${await streams()} by the client's`);
    assert.ok(handled > 0);
    assert.ok((await streams()) > 0);
  });

  it('loses nothing when the store is killed under load', async (t) => {
    for (let round = 0; round < 2; round++) {
      const load = new WriteLoad(client, kind, `kill${round}`, 16);
      await sleep(1000 + Math.random() * 500);
      await store.kill();
      const restarted = await store.start();
      await until('a write after it', 60_000, async () => {
        const probe = await client.patch(`${kind.path}/widget-1`, { spec: { probe: round } });
        return probe.status === 200;
      });
      await sleep(1000);
      await load.stop();
      t.diagnostic(
        `${load.acknowledged} writes acknowledged, ${load.uncertain} uncertain; store back in ${restarted.toFixed(0)} ms`,
      );
      assert.ok(load.acknowledged > 100, 'the load was real');
      assert.deepEqual(load.violations, []);
      assert.deepEqual(load.compare((await client.list(kind.path)).items), []);
      await compareViews(client, store, kind.path, REGISTRY);
    }
  });

  it('lists, pages and watches by RangeStream alone, without a watch cache', async (t) => {
    await server.stop('SIGKILL');
    await start('--watch-cache=false');
    const before = await streams();
    const all = await client.list(kind.path);
    const count = await compareViews(client, store, kind.path, REGISTRY);
    const pages = await client.pages(kind.path, PAGE);
    assert.deepEqual(identities(pages), identities([all]));
    assert.equal(pages[0]!.metadata.remainingItemCount, count - PAGE);
    assert.equal(new Set(pages.map((page) => page.metadata.resourceVersion)).size, 1, 'pages of one revision');

    await inParallel(100, WIDTH, (i) => client.object('DELETE', `${kind.path}/widget-${i * 7}`));
    const exact = { resourceVersion: all.metadata.resourceVersion, resourceVersionMatch: 'Exact' };
    assert.deepEqual(identities([await client.list(kind.path, exact)]), identities([all]), 'the earlier revision');
    assert.deepEqual(identities(await client.pages(kind.path, PAGE, exact)), identities([all]), 'and its pages');
    assert.equal((await client.list(kind.path)).items.length, count - 100);

    // A watch from nothing first lists, then follows.
    const watch = client.watch(kind.path, '0');
    await until('all objects as events', 20_000, () => watch.events.length === count - 100);
    assert.ok(watch.events.every(({ type }) => type === 'ADDED'));
    await client.object('DELETE', `${kind.path}/widget-1`);
    await until('the deletion', 10_000, () => watch.events.at(-1)?.type === 'DELETED');
    watch.stop();
    assert.equal(watch.failure, null);
    const made = (await streams()) - before;
    t.diagnostic(`${made} RangeStreams`);
    assert.ok(made >= 4 + (2 * COUNT) / PAGE, 'each list was a stream');
  });

  it('never fell back from RangeStream', () => {
    assert.doesNotMatch(server.log(), /does not support RangeStream|Cache consistency check failed|panic:/);
    assert.doesNotMatch(store.log(), /"level":"(fatal|panic|error)"/);
  });
});
