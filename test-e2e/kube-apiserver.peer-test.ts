// Goal: a real kube-apiserver 1.36.3 lives on keelson: it becomes ready, serves thousands of objects by every verb, survives
// kill -9 of the store under load with nothing acknowledged lost, and its watch cache stays what the store holds.
// Method: the test keeps its own account of every acknowledged write; keelson-watcher (clientv3) and a watch of the API server
// follow all pods from the first revision on and must agree event for event with each other and with a later replay; after every
// disturbance a list from the cache, a consistent list and the store's own keys are compared by name and revision.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { KubeApiServer } from './kube-apiserver.ts';
import { describeAnswer, inParallel, type KubeClient, type Watch } from './kube-client.ts';
import { compareViews, identities } from './object-views.ts';
import { Program, scratchFolder, sleep, until } from './program.ts';
import { Store, sumOf } from './store.ts';
import { defineWidgets, widgetsIn } from './widget.ts';
import { type Kind, WriteLoad } from './write-load.ts';

const NAMESPACE = 'load';
const CORE = `/api/v1/namespaces/${NAMESPACE}`;
const PODS = `${CORE}/pods`;
const CONFIG_MAPS = `${CORE}/configmaps`;
const EVENTS = `${CORE}/events`;
const COUNT = { configMaps: 2000, pods: 1500, events: 1000, widgets: 300 };
const WIDTH = 32;
const PAGE = 500;
const EVENT_TTL_S = 45;
/** Minutes of further load, kills and the API server's own compactions: from 9 on its own comparison of cache and store runs too. */
const LONG_MINUTES = Number(process.env['KEELSON_E2E_LONG'] ?? 0);
const widgetKind = widgetsIn(NAMESPACE);
const WIDGETS = widgetKind.path;

const podKind: Kind = {
  path: PODS,
  body: (name) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: 'load' } },
    spec: { containers: [{ name: 'main', image: 'none/none:1', env: [{ name: 'A', value: 'b' }] }] },
  }),
};
const configMapKind: Kind = {
  path: CONFIG_MAPS,
  body: (name) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { text: 'x'.repeat(200) } }),
};
const eventBody = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name, namespace: NAMESPACE },
  involvedObject: { kind: 'Pod', namespace: NAMESPACE, name: 'pod-0' },
  reason: 'Tested',
  message: name,
  type: 'Normal',
});
interface Line {
  readonly type: string;
  readonly key: string;
  readonly mod_revision: number;
  readonly version: number;
}

const linesOf = (program: Program): Line[] =>
  program
    .output()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);

describe('kube-apiserver 1.36.3 on keelson', { timeout: 600_000 + LONG_MINUTES * 90_000 }, () => {
  const scratch = scratchFolder('kube');
  let store: Store;
  let api: KubeApiServer;
  let client: KubeClient;
  let watcher: Program;
  let podWatch: Watch;
  let acknowledged = 0;
  const disturbances: number[] = [];

  const startWatcher = (name: string): Program =>
    new Program({
      name,
      file: join(peerBinaries, 'keelson-watcher'),
      args: ['-endpoint', store.endpoint, '-prefix', '/registry/pods/', '-rev', '1'],
      folder: scratch.folder,
      splitOutput: true,
    });

  const compareAll = async (): Promise<void> => {
    await compareViews(client, store, '/api/v1/pods', '/registry/pods/');
    await compareViews(client, store, CONFIG_MAPS, `/registry/configmaps/${NAMESPACE}/`);
    await compareViews(client, store, WIDGETS, `/registry/keelson.test/widgets/`);
  };

  before(async () => {
    store = await Store.create(scratch.folder);
    api = await KubeApiServer.create(scratch.folder, store.endpoint, [
      `--event-ttl=${EVENT_TTL_S}s`,
      '--lease-reuse-duration-seconds=5',
      ...(LONG_MINUTES > 0 ? ['--etcd-compaction-interval=2m'] : []),
    ]);
    client = api.client;
    await store.start();
  });

  after(async () => {
    podWatch?.stop();
    client?.close();
    await watcher?.stop('SIGKILL');
    await api?.kill();
    await store?.kill();
    scratch.remove();
  });

  it('becomes ready', async (t) => {
    watcher = startWatcher('watcher');
    t.diagnostic(`ready after ${(await api.start()).toFixed(0)} ms`);
    await client.object('POST', '/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: NAMESPACE },
    });
    const pods = await client.list('/api/v1/pods');
    assert.equal(pods.items.length, 0);
    podWatch = client.watch('/api/v1/pods', pods.metadata.resourceVersion);
  });

  it('creates thousands of objects', async (t) => {
    const began = performance.now();
    await inParallel(COUNT.configMaps, WIDTH, (i) =>
      client.object('POST', CONFIG_MAPS, configMapKind.body(`map-${i}`)),
    );
    await inParallel(COUNT.pods, WIDTH, (i) => client.object('POST', PODS, podKind.body(`pod-${i}`)));
    await defineWidgets(client, widgetKind);
    await inParallel(COUNT.widgets, WIDTH, (i) => client.object('POST', WIDGETS, widgetKind.body(`widget-${i}`)));
    // Last, because they begin to expire.
    await inParallel(COUNT.events, WIDTH, (i) => client.object('POST', EVENTS, eventBody(`event-${i}`)));
    const count = COUNT.configMaps + COUNT.pods + COUNT.events + COUNT.widgets;
    acknowledged += count;
    t.diagnostic(`${count} objects in ${(performance.now() - began).toFixed(0)} ms`);
  });

  it('attaches events to leases that several share', async () => {
    const leases = await store.leases(`/registry/events/${NAMESPACE}/`);
    assert.equal(leases.length, COUNT.events);
    const distinct = new Set(leases).size;
    assert.ok(distinct < COUNT.events / 10, `${distinct} leases`);
  });

  it('lists by page, at a revision, from the cache and consistently', async () => {
    const pages = await client.pages(CONFIG_MAPS, PAGE);
    assert.deepEqual(
      pages.map((page) => page.items.length),
      [PAGE, PAGE, PAGE, PAGE],
    );
    assert.equal(pages[0]!.metadata.remainingItemCount, COUNT.configMaps - PAGE);
    assert.equal(new Set(pages.map((page) => page.metadata.resourceVersion)).size, 1, 'pages of one revision');
    // Events have no watch cache: these pages are the store's own, with limit, count and a pinned revision.
    const events = await client.pages(EVENTS, PAGE);
    assert.deepEqual(
      events.map((page) => page.items.length),
      [PAGE, PAGE],
    );
    assert.equal(events[0]!.metadata.remainingItemCount, COUNT.events - PAGE);

    const then = await client.list(EVENTS);
    const mapsThen = await client.list(CONFIG_MAPS);
    await client.object('DELETE', `${EVENTS}/event-0`);
    await client.object('DELETE', `${CONFIG_MAPS}/map-0`);
    const exact = { resourceVersion: then.metadata.resourceVersion, resourceVersionMatch: 'Exact' };
    assert.deepEqual(
      identities([await client.list(EVENTS, exact)]),
      identities([then]),
      'events at the earlier revision',
    );
    const exactMaps = { resourceVersion: mapsThen.metadata.resourceVersion, resourceVersionMatch: 'Exact' };
    assert.deepEqual(identities([await client.list(CONFIG_MAPS, exactMaps)]), identities([mapsThen]));
    assert.equal((await client.list(EVENTS)).items.length, COUNT.events - 1);
    const notOlder = { resourceVersion: then.metadata.resourceVersion, resourceVersionMatch: 'NotOlderThan' };
    assert.ok((await client.list(CONFIG_MAPS, notOlder)).items.length >= COUNT.configMaps - 1);
    await compareAll();
  });

  it('serves consistent lists from its cache by progress requests', async (t) => {
    const before = await api.metrics();
    const rounds = 10;
    const waits: number[] = [];
    for (let i = 0; i < rounds; i++) {
      // Another resource moves the revision: only a progress notification can tell the pods' cache that it is up to date.
      await client.patch(`${CONFIG_MAPS}/map-1`, { data: { round: String(i) } });
      const began = performance.now();
      assert.equal((await client.list(PODS)).items.length, COUNT.pods);
      waits.push(performance.now() - began);
    }
    const after = await api.metrics();
    const grown = (labels: Record<string, string>): number =>
      sumOf(after, 'apiserver_watch_cache_consistent_read_total', labels) -
      sumOf(before, 'apiserver_watch_cache_consistent_read_total', labels);
    assert.equal(grown({ resource: 'pods', success: 'true', fallback: 'false' }), rounds, 'served by the cache');
    assert.equal(grown({ resource: 'pods', success: 'false' }), 0, 'waited in vain for progress');
    t.diagnostic(`consistent lists of ${COUNT.pods} pods: ${waits.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  });

  it('updates, patches, refuses conflicts, deletes', async () => {
    await inParallel(COUNT.pods, WIDTH, async (i) => {
      const pod = await client.object('GET', `${PODS}/pod-${i}`);
      const labels = { ...pod.metadata.labels, round: String(i % 2) };
      const updated = await client.object('PUT', `${PODS}/pod-${i}`, { ...pod, metadata: { ...pod.metadata, labels } });
      assert.ok(Number(updated.metadata.resourceVersion) > Number(pod.metadata.resourceVersion));
      if (i % 100 === 0) {
        const stale = await client.send('PUT', `${PODS}/pod-${i}`, {
          ...pod,
          metadata: { ...pod.metadata, labels: { a: 'b' } },
        });
        assert.equal(stale.status, 409, describeAnswer(stale));
      }
    });
    await inParallel(COUNT.pods / 2, WIDTH, async (i) => {
      const patch = { status: { phase: 'Running', podIP: `10.0.${i >> 8}.${i & 255}` } };
      const answer = await client.patch(`${PODS}/pod-${i}/status`, patch);
      assert.equal(answer.status, 200, describeAnswer(answer));
    });
    await inParallel(COUNT.pods / 5, WIDTH, (i) => client.object('DELETE', `${PODS}/pod-${i}`));
    acknowledged += COUNT.pods * 1.7;
    const twice = await client.send('POST', PODS, podKind.body(`pod-${COUNT.pods - 1}`));
    assert.equal(twice.status, 409, describeAnswer(twice));
    assert.equal((await client.send('GET', `${PODS}/pod-0`)).status, 404);
    assert.equal((await client.list(PODS, { labelSelector: 'round=1' })).items.length, (COUNT.pods * 4) / 10);
    await client.object('DELETE', WIDGETS);
    assert.equal((await client.list(WIDGETS)).items.length, 0, 'deletecollection');
    await inParallel(100, WIDTH, (i) => client.object('POST', WIDGETS, widgetKind.body(`widget-${i}`)));
    await compareAll();
  });

  it('serves kubectl', async () => {
    const manifest = join(scratch.folder, 'manifest.json');
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: NAMESPACE },
      spec: { ports: [{ port: 80 }] },
    };
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'key', namespace: NAMESPACE },
      stringData: { a: 'b' },
    };
    writeFileSync(manifest, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [service, secret] }));
    assert.match(await api.kubectl('apply', '--server-side', '-f', manifest), /service\/web serverside-applied/);
    const names = await api.kubectl('get', 'pods', '-A', '--chunk-size=500', '-o', 'name');
    assert.equal(names.trim().split('\n').length, (COUNT.pods * 4) / 5);
    assert.match(await api.kubectl('-n', NAMESPACE, 'get', 'secret', 'key', '-o', 'jsonpath={.data.a}'), /^Yg==$/);
    assert.match(await api.kubectl('-n', NAMESPACE, 'label', 'service', 'web', 'tier=front'), /labeled/);
    assert.match(await api.kubectl('-n', NAMESPACE, 'get', 'widgets', 'widget-1'), /widget-1/);
    assert.match(await api.kubectl('-n', NAMESPACE, 'delete', 'service/web', 'secret/key', '--wait'), /"web" deleted/);
    assert.match(await api.kubectl('version'), /Server Version: v1\.36\.3/);
  });

  /** Writes on, does something to the store, and holds all that was acknowledged against what is there. */
  const disturb = async (
    t: { diagnostic(text: string): void },
    name: string,
    disturbance: () => Promise<void>,
  ): Promise<void> => {
    const pods = new WriteLoad(client, podKind, `${name}-pod`, 12);
    const maps = new WriteLoad(client, configMapKind, `${name}-map`, 12);
    await sleep(1000 + Math.random() * 500);
    const began = performance.now();
    await disturbance();
    await until('a write after it', 60_000, async () => {
      const probe = await client.patch(`${CONFIG_MAPS}/map-2`, { data: { probe: name } });
      return probe.status === 200;
    });
    const recovered = performance.now() - began;
    disturbances.push(recovered);
    await sleep(1500);
    await Promise.all([pods.stop(), maps.stop()]);
    acknowledged += pods.acknowledged + maps.acknowledged;
    await api.ready();
    t.diagnostic(
      `${name}: ${pods.acknowledged + maps.acknowledged} writes acknowledged on ${pods.objects + maps.objects} objects, ` +
        `${pods.uncertain + maps.uncertain} uncertain; writes again ${recovered.toFixed(0)} ms after it began`,
    );
    assert.ok(pods.acknowledged > 100 && maps.acknowledged > 100, 'the load was real');
    assert.deepEqual([...pods.violations, ...maps.violations], []);
    assert.deepEqual(pods.compare((await client.list(PODS)).items), [], 'pods lost or torn');
    assert.deepEqual(maps.compare((await client.list(CONFIG_MAPS)).items), [], 'config maps lost or torn');
    await compareAll();
  };

  it('loses nothing when the store is killed under load', async (t) => {
    for (let round = 0; round < 3; round++) {
      await disturb(t, `kill${round}`, async () => {
        await store.kill();
        // The second time it stays away for longer than clients wait for one call.
        await sleep(round === 1 ? 3000 : 0);
        t.diagnostic(`restarted in ${(await store.start()).toFixed(0)} ms`);
      });
    }
  });

  it('loses nothing when the store is stopped under load', async (t) => {
    await disturb(t, 'stop', async () => {
      const began = performance.now();
      const status = await store.stop();
      t.diagnostic(`stopped in ${(performance.now() - began).toFixed(0)} ms`);
      assert.deepEqual(status, store.isEtcd ? { code: null, signal: 'SIGTERM' } : { code: 0, signal: null });
      await store.start();
    });
  });

  it('shows every event of the pods exactly once, on every way', async (t) => {
    const revision = await store.revision();
    const replay = startWatcher('replay');
    const last = (await store.keys('/registry/pods/')).reduce((max, { modRevision }) => Math.max(max, modRevision), 0);
    await until('the replay has the newest pod', 30_000, () =>
      linesOf(replay).some((line) => line.mod_revision >= last),
    );
    const settled = async (): Promise<boolean> => {
      const counts = [linesOf(watcher).length, linesOf(replay).length, podWatch.events.length];
      await sleep(1000);
      return (
        counts[0] === linesOf(watcher).length &&
        counts[0] === linesOf(replay).length &&
        counts[0] === podWatch.events.length
      );
    };
    await until('all ways have as many events', 20_000, settled).catch(() => {});
    await replay.stop();
    assert.equal(watcher.ended, false, `keelson-watcher ended: ${watcher.log()}`);

    const live = linesOf(watcher);
    assert.deepEqual(live, linesOf(replay), 'the watcher across all restarts against a replay of the history');
    const versions = new Map<string, number>();
    let previous = 0;
    for (const { type, key, mod_revision, version } of live) {
      assert.ok(mod_revision > previous && mod_revision <= revision, `${key} at ${mod_revision} after ${previous}`);
      previous = mod_revision;
      const expected = type === 'DELETE' ? 0 : (versions.get(key) ?? 0) + 1;
      assert.equal(version, expected, `${type} ${key} at ${mod_revision}`);
      versions.set(key, version);
    }
    const alive = [...versions].filter(([, version]) => version > 0).map(([key]) => key);
    assert.deepEqual(alive.sort(), (await store.keys('/registry/pods/')).map(({ key }) => key).sort());

    podWatch.stop(); // a new API server knows nothing of the revisions before it
    assert.equal(podWatch.failure, null);
    const kindOf: Readonly<Record<string, string>> = { ADDED: 'PUT', MODIFIED: 'PUT', DELETED: 'DELETE' };
    assert.deepEqual(
      podWatch.events.map(({ type, name, resourceVersion }) => `${kindOf[type]} ${name} ${resourceVersion}`),
      live.map(({ type, key, mod_revision }) => `${type} ${key.split('/').at(-1)} ${mod_revision}`),
      'the API server’s watch against the store’s',
    );
    t.diagnostic(`${live.length} pod events three times alike; the API watch was resumed ${podWatch.resumes} times`);
  });

  it('fills a new API server from the store', async (t) => {
    await disturb(t, 'api', async () => {
      await api.kill();
      t.diagnostic(`API server ready after ${(await api.start()).toFixed(0)} ms`);
    });
  });

  it('goes on after a compaction, and says when a revision is gone', async () => {
    const events = await client.list(EVENTS, { limit: '2' });
    const then = await store.revision();
    await client.patch(`${CONFIG_MAPS}/map-3`, { data: { a: 'b' } });
    await store.ctl('compact', String(then + 1), '--physical');
    await compareAll();
    const exact = await client.send('GET', `${EVENTS}?resourceVersion=${then}&resourceVersionMatch=Exact`);
    assert.equal(exact.status, 410, describeAnswer(exact));
    if (events.metadata.continue !== undefined) {
      const query = new URLSearchParams({ limit: '2', continue: events.metadata.continue });
      const page = await client.send('GET', `${EVENTS}?${query}`);
      assert.equal(page.status, 410, describeAnswer(page));
    }
    const watch = client.watch(EVENTS, '1');
    await until('the old watch is refused', 10_000, () => watch.failure !== null);
    watch.stop();
    assert.match(watch.failure!, /410/);
  });

  it('lets events expire with their leases', async (t) => {
    const began = performance.now();
    // A restarted store gives each lease its whole time anew, as etcd does.
    const timeoutMs = (EVENT_TTL_S + 30) * 1000;
    await until(
      'no events left',
      timeoutMs,
      async () => (await store.keys(`/registry/events/${NAMESPACE}/`)).length === 0,
    );
    t.diagnostic(`the last event was gone ${(performance.now() - began).toFixed(0)} ms after the other tests`);
    assert.equal((await client.list(EVENTS)).items.length, 0);
  });

  it('goes on for long', { skip: LONG_MINUTES === 0 }, async (t) => {
    const pods = new WriteLoad(client, podKind, 'long', 1);
    for (let minute = 0; minute < LONG_MINUTES; minute++) {
      await sleep(50_000 + Math.random() * 10_000);
      await store.kill();
      await store.start();
    }
    await pods.stop();
    assert.deepEqual(pods.violations, []);
    assert.deepEqual(pods.compare((await client.list(PODS)).items), []);
    await compareAll();
    const checks = sumOf(await api.metrics(), 'apiserver_storage_consistency_checks_total', { status: 'success' });
    t.diagnostic(`${pods.acknowledged} writes; the API server compared cache and store ${checks} times`);
    assert.ok(LONG_MINUTES < 9 || checks > 10);
    const compacted = Number(await store.ctl('get', 'compact_rev_key', '--print-value-only'));
    assert.ok(LONG_MINUTES < 5 || compacted > 0, 'the API server compacts');
    t.diagnostic(`compacted by it up to revision ${compacted}`);
  });

  it('never found its cache inconsistent', async (t) => {
    const metrics = await api.metrics();
    assert.equal(sumOf(metrics, 'apiserver_storage_consistency_checks_total', { status: 'failure' }), 0);
    const log = api.log();
    assert.doesNotMatch(log, /Cache consistency check failed|is not supported by|panic:|fatal error|Data race/);
    assert.doesNotMatch(store.log(), /"level":"(fatal|panic|error)"/);
    t.diagnostic(
      `${acknowledged} writes acknowledged in all; recoveries ${disturbances.map((ms) => ms.toFixed(0)).join(', ')} ms`,
    );
  });
});
