// Goal: HTTP answers and metric names equal a real etcd's. Method: etcd on free ports and our Admin behind our HTTP/1.1, the
// same requests to both over sockets; then the sets of metric families of both with an allow-list.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { createServer, type Server } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FeatureGateSet } from '../config/feature-gates.ts';
import { Http1Server } from '../io/http1.ts';
import { processReader } from '../io/process-info.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { RuntimeMetrics } from '../telemetry/runtime-metrics.ts';
import { type ParsedFamily, parseExposition } from '../testing/exposition-parser.ts';
import { freePort } from '../testing/free-port.ts';
import { Admin, type AdminSource } from './admin.ts';

const bin = join(homedir(), '.cache/keelson/bin');
const dir = mkdtempSync(join(tmpdir(), 'keelson-admin-'));

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const comparedHeaders = [
  'allow',
  'content-type',
  'x-content-type-options',
  'location',
  'access-control-allow-origin',
  'access-control-allow-methods',
  'access-control-allow-headers',
];

function ask(port: number, method: string, path: string, headers: Record<string, string>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = httpRequest({ host: '127.0.0.1', port, method, path, headers, agent: false }, async (response) => {
      let body = '';
      for await (const chunk of response) body += chunk;
      const shown = comparedHeaders.filter((name) => response.headers[name] !== undefined);
      resolve({
        status: response.statusCode ?? 0,
        headers: Object.fromEntries(shown.map((name) => [name, String(response.headers[name])])),
        // The order of checks is random in etcd.
        body: path.includes('verbose') ? body.split('\n').sort().join('\n') : body,
      });
    });
    call.on('error', reject);
    call.end();
  });
}

const requests: readonly (readonly [method: string, path: string, headers?: Record<string, string>])[] = [
  ...[
    '/version',
    '/health',
    '/health?serializable=true',
    '/health?exclude=NOSPACE',
    '/health?exclude=%zz',
    '/livez',
    '/readyz',
  ].map((path) => ['GET', path] as const),
  ...[
    '/livez?verbose',
    '/readyz?verbose',
    '/readyz/non_learner?verbose',
    '/readyz/data_corruption',
    '/readyz/linearizable_read',
  ].map((path) => ['GET', path] as const),
  ...[
    '/livez/serializable_read',
    '/livez?verbose&exclude=serializable_read',
    '/readyz?verbose&exclude=nope&exclude=non_learner',
    '/livez?exclude',
  ].map((path) => ['GET', path] as const),
  ...[
    '/',
    '/nope',
    '/livez/',
    '/livez/nope',
    '/livez/non_learner',
    '/metrics/',
    '/%68ealth',
    '//health',
    '/health/../version?a=1',
    '/./health',
    '/a//b/',
  ].map((path) => ['GET', path] as const),
  ...['/health', '/version', '/livez', '/readyz/non_learner', '/debug/vars', '/nope', '//health'].flatMap((path) => [
    ['POST', path] as const,
    ['HEAD', path] as const,
  ]),
  ['OPTIONS', '/health'],
  ['OPTIONS', '/nope', { Origin: 'http://x' }],
  ['GET', '/health', { Host: 'evil.example' }],
  ['GET', '/health', { Origin: 'http://x' }],
];

/** Families of etcd that a member here does not show, and why. */
const absent: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [/^go_gc_/, "Go's collector: nodejs_gc_duration_seconds is ours"],
  [
    /^go_memstats_(?!alloc_bytes$|heap_alloc_bytes$|heap_inuse_bytes$|heap_sys_bytes$)/,
    "the parts of Go's heap do not exist",
  ],
  [/^go_sched_gomaxprocs_threads$/, 'no Go scheduler'],
];

describe('admin beside etcd', { skip: !existsSync(join(bin, 'etcd')) }, () => {
  let etcd: ChildProcess;
  let theirPort: number;
  let theirMetricsPort: number;
  let ourPort: number;
  let listener: Server;
  let http: Http1Server;
  let metrics: Metrics;

  before(async () => {
    theirPort = await freePort();
    theirMetricsPort = await freePort();
    const client = `http://127.0.0.1:${theirPort}`;
    const peer = `http://127.0.0.1:${await freePort()}`;
    const args = [
      ...[
        '--name=m',
        `--data-dir=${join(dir, 'data')}`,
        `--listen-client-urls=${client}`,
        `--advertise-client-urls=${client}`,
      ],
      ...[`--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`, `--initial-cluster=m=${peer}`],
      ...['--metrics=extensive', `--listen-metrics-urls=http://127.0.0.1:${theirMetricsPort}`],
    ];
    etcd = spawn(join(bin, 'etcd'), args, { env: {}, stdio: ['ignore', 'ignore', 'pipe'] });
    await new Promise<void>((resolve, reject) => {
      let log = '';
      etcd.stderr!.on('data', (chunk) => {
        log += chunk;
        if (log.includes('"msg":"updated storage version","new-storage-version":"3.7.0"')) resolve();
      });
      etcd.on('exit', () => reject(new Error(`etcd ended: ${log}`)));
    });
    metrics = new Metrics(
      { serverVersion: '3.7.1', runtimeVersion: 'none (node)', extensive: true, features: new FeatureGateSet().all() },
      async (families) => new RuntimeMetrics(families, 'none (node)', processReader),
    );
    const source: AdminSource = {
      alarms: () => [],
      leader: () => 1n,
      isLearner: () => false,
      linearizableRead: (_timeoutMs, done) => done(null),
      serializableRead: (_timeoutMs, done) => done(null),
      clusterId: () => 'c1',
      hashByRevision: (_revision, done) => done(null, { hash: 7, revision: 1, compactRevision: -1 }, 1),
      isDowngrading: () => false,
      members: () => ({ clusterId: 'c1', json: '[]' }),
      promote: async () => '[]',
      versions: () => ({ server: '3.7.1', cluster: '3.7.0', storage: '3.7.0' }),
      metricsText: () => metrics.text(),
      lease: () => null,
      debugVariables: () => ({}),
    };
    const logger = new Logger({
      level: 'fatal',
      format: 'json',
      sink: { write(): void {}, flush(): void {} },
      now: Date.now,
    });
    const access = { cors: ['*'], hostWhitelist: ['*'] };
    const admin = new Admin({ source, metrics, logger, access, requestTimeoutMs: 7000 });
    http = new Http1Server({
      bodyBytesMax: 1024,
      onError: (error) => assert.fail(String(error)),
      handler: (request) => admin.handle(request),
    });
    listener = createServer((socket) => http.accept(socket));
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    ourPort = (listener.address() as { port: number }).port;
  });

  after(async () => {
    etcd.kill('SIGKILL');
    await http.close(100);
    listener.close();
    rmSync(dir, { recursive: true, force: true });
  });

  for (const [method, path, headers] of requests) {
    it(`${method} ${path} ${JSON.stringify(headers ?? {})}`, async () => {
      assert.deepEqual(
        await ask(ourPort, method, path, headers ?? {}),
        await ask(theirPort, method, path, headers ?? {}),
      );
    });
  }

  it('names, types, labels and buckets of metrics', async () => {
    // One call of each kind that makes a labelled family appear.
    for (const args of ['put a b', 'get a', 'compact 2'])
      spawnSync(join(bin, 'etcdctl'), [`--endpoints=127.0.0.1:${theirPort}`, ...args.split(' ')]);
    const ours = metrics.server;
    ours.applyDuration.with('v3', 'Put', 'true').observe(0.001);
    ours.requestDuration.with('Put', 'true').observe(0.001);
    ours.rangeDuration.with('true').observe(0.001);
    ours.id.with('1').value = 1;
    ours.clusterVersion.with('3.7').value = 1;
    metrics.network.clientVersion('3.7').count(true);
    metrics.network.knownPeers.with('1', '1').value = 1;
    const theirs = await ask(theirPort, 'GET', '/metrics', {});
    const mine = await ask(ourPort, 'GET', '/metrics', {});
    assert.deepEqual(mine.headers, theirs.headers);
    const theirFamilies = parseExposition(theirs.body);
    const ourFamilies = parseExposition(mine.body);
    const missing = [...theirFamilies.keys()].filter(
      (name) => !ourFamilies.has(name) && !absent.some(([pattern]) => pattern.test(name)),
    );
    assert.deepEqual(missing, []);
    const added = [...ourFamilies.keys()].filter(
      (name) => !theirFamilies.has(name) && !/^(?:nodejs_|process_)/.test(name),
    );
    assert.deepEqual(added, []);
    for (const [name, family] of ourFamilies) {
      const other = theirFamilies.get(name);
      if (other === undefined) continue;
      assert.equal(family.type, other.type, name);
      assert.deepEqual(labelNames(family), labelNames(other), name);
      if (family.type === 'histogram') assert.deepEqual(bounds(family), bounds(other), name);
      if (/^grpc_server_(?:started|handled|msg)/.test(name))
        assert.deepEqual(labelSets(family), labelSets(other), name);
    }
  });

  it('metrics listeners serve metrics and health only', async () => {
    for (const [path, status] of [
      ['/metrics', 200],
      ['/health', 200],
      ['/readyz', 200],
      ['/version', 404],
      ['/debug/vars', 404],
    ] as const)
      assert.equal((await ask(theirMetricsPort, 'GET', path, {})).status, status, path);
  });
});

function labelNames(family: ParsedFamily): string[] {
  return Object.keys(family.samples[0]!.labels);
}

function bounds(family: ParsedFamily): string[] {
  return [...new Set(family.samples.flatMap((sample) => sample.labels['le'] ?? []))];
}

/** Without the methods that etcd registers only for itself; in the order of the text, which must be Go's. */
function labelSets(family: ParsedFamily): string[] {
  const absentHere = /"(?:Lock|Unlock|Campaign|Proclaim|Leader|Observe|Resign)"/;
  return family.samples.map((sample) => JSON.stringify(sample.labels)).filter((text) => !absentHere.test(text));
}
