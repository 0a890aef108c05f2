// Goal: answers of the HTTP endpoints are etcd 3.7's: status, headers, bodies, reasons. Method: an Admin over a source whose
// state the test sets; admin.peer-test.ts holds the healthy answers against a real etcd.

import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { hostName } from './access.ts';
import { Admin, type AdminSource } from './admin.ts';
import type { AlarmName } from './health.ts';
import type { AdminResponse, PeerListenerResponse } from './http-message.ts';

interface State {
  alarms: AlarmName[];
  leader: bigint;
  learner: boolean;
  linearizable: string | null;
  serializable: string | null;
  cluster: string | null;
  timeouts: (number | null)[];
}

let state: State;
let metrics: Metrics;
let admin: Admin;
let lines: string[];

/** Of promotions, by the learner's id. */
const refusals: ReadonlyMap<bigint, { status: EtcdError; reason: string }> = new Map([
  [1n, { status: etcdErrors.memberNotFound, reason: 'membership: ID not found' }],
  [2n, { status: etcdErrors.memberNotLearner, reason: 'membership: can only promote a learner member' }],
  [3n, { status: etcdErrors.learnerNotReady, reason: etcdErrors.learnerNotReady.message }],
  [4n, { status: etcdErrors.unhealthy, reason: etcdErrors.unhealthy.message }],
]);

const source: AdminSource = {
  alarms: () => state.alarms.map((alarm) => ({ memberId: 7n, alarm })),
  leader: () => state.leader,
  isLearner: () => state.learner,
  linearizableRead(timeoutMs, done): void {
    state.timeouts.push(timeoutMs);
    setImmediate(done, state.linearizable);
  },
  serializableRead(timeoutMs, done): void {
    state.timeouts.push(timeoutMs);
    done(state.serializable);
  },
  versions: () => ({ server: '3.7.1', cluster: state.cluster, storage: state.cluster }),
  clusterId: () => 'c1',
  hashByRevision: (_revision, done) => done(null, { hash: 7, revision: 1, compactRevision: -1 }, 1),
  isDowngrading: () => false,
  members: () => ({ clusterId: 'c1', json: '[{"id":7}]' }),
  promote: async (id) => refusals.get(id) ?? '[{"id":7},{"id":9}]',
  metricsText: async () => 'etcd_x 1\n',
  lease: () => null,
  debugVariables: () => ({ b: '1', a: '{"x":2}' }),
};

beforeEach(() => {
  state = {
    alarms: [],
    leader: 1n,
    learner: false,
    linearizable: null,
    serializable: null,
    cluster: '3.7.0',
    timeouts: [],
  };
  lines = [];
  metrics = new Metrics({ serverVersion: '3.7.1', runtimeVersion: 'x', extensive: false, features: [] }, () =>
    assert.fail(),
  );
  const sink = { write: (line: string): void => void lines.push(line), flush: (): void => {} };
  const logger = new Logger({ level: 'debug', format: 'json', sink, now: () => 0 });
  admin = new Admin({ source, metrics, logger, access: { cors: ['*'], hostWhitelist: ['*'] }, requestTimeoutMs: 7000 });
});

function get(
  target: string,
  more: Partial<{ method: string; host: string; origin: string; secure: boolean }> = {},
): Promise<AdminResponse> {
  return admin.handle({ method: 'GET', target, host: 'localhost:2379', origin: '', secure: false, ...more });
}

async function brief(target: string, method: string = 'GET'): Promise<[number, string]> {
  const response = await get(target, { method });
  return [response.status, response.body];
}

describe('/health', () => {
  it('tells the first reason in etcd order', async () => {
    assert.deepEqual(await brief('/health'), [200, '{"health":"true","reason":""}']);
    state.linearizable = 'etcdserver: request timed out';
    assert.deepEqual(await brief('/health'), [
      503,
      '{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}\n',
    ]);
    state.leader = 0n;
    assert.deepEqual(await brief('/health'), [503, '{"health":"false","reason":"RAFT NO LEADER"}\n']);
    state.alarms = ['NOSPACE', 'CORRUPT'];
    assert.deepEqual(await brief('/health'), [503, '{"health":"false","reason":"ALARM NOSPACE"}\n']);
    assert.deepEqual(await brief('/health?exclude=NOSPACE'), [503, '{"health":"false","reason":"ALARM CORRUPT"}\n']);
    assert.deepEqual(await brief('/health?exclude=NOSPACE&exclude=CORRUPT&serializable=true'), [
      200,
      '{"health":"true","reason":""}',
    ]);
    assert.equal(metrics.health.successes, 2);
    assert.equal(metrics.health.failures, 4);
    assert.ok(lines.some((line) => line.includes('"msg":"/health error"') && line.includes('"status-code":503')));
  });

  it('bounds its read and takes only GET', async () => {
    await brief('/health');
    assert.deepEqual(state.timeouts, [7000]);
    for (const method of ['POST', 'HEAD', 'PUT']) {
      const response = await get('/health', { method });
      assert.equal(response.status, 405);
      assert.equal(response.headers['Allow'], 'GET');
      assert.equal(response.body, 'Method Not Allowed\n');
    }
    assert.equal(metrics.health.successes, 1);
  });
});

describe('/livez and /readyz', () => {
  it('say ok, verbosely when asked', async () => {
    assert.deepEqual(await brief('/livez'), [200, 'ok\n']);
    assert.deepEqual(await brief('/readyz'), [200, 'ok\n']);
    assert.deepEqual(await brief('/livez?verbose'), [200, '[+]serializable_read ok\nok\n']);
    const all = '[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n';
    assert.deepEqual(await brief('/readyz?verbose'), [200, all]);
    assert.deepEqual(await brief('/readyz/non_learner?verbose=1'), [200, '[+]non_learner ok\nok\n']);
    assert.deepEqual(await brief('/livez/serializable_read'), [200, 'ok\n']);
    assert.deepEqual(await brief('/readyz?verbose&exclude=linearizable_read&exclude=nope&exclude='), [
      200,
      '[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n',
    ]);
    assert.ok(lines.some((line) => line.includes('some health checks cannot be excluded') && line.includes('nope')));
  });

  it('say which check failed', async () => {
    state.alarms = ['CORRUPT'];
    state.linearizable = 'etcdserver: no leader';
    state.learner = true;
    assert.deepEqual(await brief('/readyz'), [
      503,
      '[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: no leader\n[-]non_learner failed: not supported for learner\n\n',
    ]);
    assert.deepEqual(await brief('/livez'), [200, 'ok\n']);
    assert.deepEqual(await brief('/readyz/data_corruption'), [
      503,
      '[-]data_corruption failed: alarm activated: CORRUPT\n\n',
    ]);
    assert.equal((await brief('/readyz/serializable_read'))[0], 200);
    assert.equal(metrics.health.last.with('readyz', 'data_corruption').value, 0);
    assert.equal(metrics.health.checks.with('readyz', 'data_corruption', 'error').value, 2);
    assert.equal(metrics.health.checks.with('livez', 'serializable_read', 'success').value, 1);
    assert.equal((await brief('/readyz', 'POST'))[0], 405);
  });
});

describe('the rest', () => {
  it('versions, metrics, variables', async () => {
    assert.deepEqual(await brief('/version'), [200, '{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}']);
    state.cluster = null;
    assert.deepEqual(await brief('/version'), [
      200,
      '{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}',
    ]);
    const exposition = await get('/metrics', { method: 'POST' });
    assert.deepEqual([exposition.status, exposition.body], [200, 'etcd_x 1\n']);
    assert.equal(exposition.headers['Content-Type'], 'text/plain; version=0.0.4; charset=utf-8; escaping=underscores');
    assert.deepEqual(await brief('/debug/vars'), [200, '{\n"a": {"x":2},\n"b": 1\n}\n']);
    assert.equal((await brief('/version', 'POST'))[0], 405);
    assert.equal((await brief('/debug/vars', 'POST'))[0], 405);
  });

  it('a peer listener: members and version alone', async () => {
    const ask = (target: string, method = 'GET'): Promise<PeerListenerResponse> =>
      admin.handlePeer({ method, target, host: '', origin: '', secure: false });
    const members = await ask('/members');
    assert.deepEqual([members.status, members.body, members.headers['X-Etcd-Cluster-Id']], [200, '[{"id":7}]\n', 'c1']);
    assert.equal((await ask('/version')).status, 200);
    assert.deepEqual([(await ask('/members', 'POST')).status, (await ask('/version', 'POST')).status], [405, 405]);
    for (const path of ['/health', '/metrics', '/raft/stream', '/members/', '/']) {
      assert.equal((await ask(path)).status, 404, path);
    }
    assert.equal((await ask('//members')).status, 307);
  });

  it("a promotion that another member asks for: etcd's codes and texts", async () => {
    const ask = (target: string, method = 'POST'): ReturnType<Admin['handlePeer']> =>
      admin.handlePeer({ method, target, host: '', origin: '', secure: false });
    const good = await ask('/members/promote/9');
    assert.deepEqual(
      [good.status, good.body, good.headers['X-Etcd-Cluster-Id'], good.headers['Content-Type']],
      [200, '[{"id":7},{"id":9}]\n', 'c1', 'application/json'],
    );
    const cases: [target: string, status: number, body: string][] = [
      ['1', 404, 'membership: ID not found\n'],
      ['2', 412, 'membership: can only promote a learner member\n'],
      ['3', 412, 'etcdserver: can only promote a learner member which is in sync with leader\n'],
      ['4', 500, '{"message":"Internal Server Error"}'],
      ['x', 404, 'member x not found in cluster\n'],
      ['-1', 404, 'member -1 not found in cluster\n'],
      ['18446744073709551616', 404, 'member 18446744073709551616 not found in cluster\n'],
    ];
    for (const [id, status, body] of cases) {
      const answer = await ask(`/members/promote/${id}`);
      assert.deepEqual([answer.status, answer.body, answer.headers['X-Etcd-Cluster-Id']], [status, body, 'c1'], id);
    }
    const wrong = await ask('/members/promote/9', 'GET');
    assert.deepEqual([wrong.status, wrong.headers['Allow']], [405, 'POST']);
    const failures = lines.filter((line) => line.includes('failed to promote a member'));
    assert.equal(failures.length, 4);
    assert.match(failures[3]!, /"member-id":"4","error":"etcdserver: unhealthy cluster"/);
  });

  it('unknown and unclean paths as Go', async () => {
    for (const path of ['/', '/nope', '/livez/', '/livez/nope', '/metrics/', '/health/x', '/readyz/non_learner/x'])
      assert.deepEqual(await brief(path), [404, '404 page not found\n'], path);
    assert.equal((await brief('/%68ealth'))[0], 200);
    assert.equal((await brief('/health#x'))[0], 404, 'a fragment is never sent: it is part of the path');
    assert.equal((await brief('/%2fhealth'))[0], 404, 'an escaped slash is none');
    const unreadable = await get('/%zz', { origin: 'http://x' });
    assert.deepEqual(unreadable, {
      status: 400,
      headers: { 'Content-Type': 'text/plain; charset=utf-8' },
      body: '400 Bad Request',
      closes: true,
    });
    assert.deepEqual(await get('*', { method: 'OPTIONS' }), { status: 200, headers: {}, body: '' });
    const redirect = await get('//health?a=1&b');
    assert.deepEqual(
      [redirect.status, redirect.headers['Location'], redirect.body],
      [307, '/health?a=1&b', '<a href="/health?a=1&amp;b">Temporary Redirect</a>.\n\n'],
    );
    assert.equal((await get('/health/../version')).headers['Location'], '/version');
    assert.equal((await get('/\r\nx/../a\r\nSet-Cookie: b')).headers['Location'], '/a%0D%0ASet-Cookie:%20b');
  });

  it('serves only metrics and health on metrics listeners', async () => {
    const ask = async (target: string): Promise<AdminResponse> =>
      admin.handleMetricsOnly({ method: 'GET', target, host: 'evil', origin: '', secure: false });
    assert.equal((await ask('/metrics')).status, 200);
    assert.equal((await ask('/readyz')).status, 200);
    assert.equal((await ask('/version')).status, 404);
    assert.equal((await ask('/debug/vars')).status, 404);
    assert.equal((await ask('/health')).headers['Access-Control-Allow-Origin'], undefined);
  });

  it('guards hosts and origins', async () => {
    const logger = new Logger({
      level: 'fatal',
      format: 'json',
      sink: { write(): void {}, flush(): void {} },
      now: () => 0,
    });
    admin = new Admin({
      source,
      metrics,
      logger,
      access: { cors: ['http://a'], hostWhitelist: ['good'] },
      requestTimeoutMs: 1,
    });
    const evil = await get('/health', { host: 'evil:2379' });
    assert.equal(evil.status, 421);
    assert.match(evil.body, /--host-whitelist "evil"/);
    assert.equal((await get('/health', { host: 'evil', secure: true })).status, 200);
    const good = await get('/health', { host: 'good:1', origin: 'http://a' });
    assert.equal(good.headers['Access-Control-Allow-Origin'], 'http://a');
    assert.equal(
      (await get('/health', { host: 'good', origin: 'http://b' })).headers['Access-Control-Allow-Origin'],
      undefined,
    );
    const options = await get('/nope', { host: 'good', origin: 'http://a', method: 'OPTIONS' });
    assert.deepEqual([options.status, options.body], [200, '']);
    const names: [string, string][] = [
      ['a', 'a'],
      ['a:1', 'a'],
      ['[::1]:1', '::1'],
      ['::1', '::1'],
      ['', ''],
    ];
    for (const [host, name] of names) assert.equal(hostName(host), name);
  });
});
