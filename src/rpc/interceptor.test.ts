// Goal: who wants a leader gets etcd's error while there is none, and counts of client versions are etcd's. Method: the interceptor with a
// leader that comes and goes, in front of the echo methods, observed by the real observer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GrpcServer, grpcServerOptions } from '../grpc/server.ts';
import { processReader } from '../io/process-info.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { RuntimeMetrics } from '../telemetry/runtime-metrics.ts';
import { echoRouter } from '../testing/echo-server.ts';
import { answerOf, frameOf, grpcMessage, TestClient } from '../testing/http2-client.ts';
import { callObserver } from './call-observer.ts';
import { Interceptor, isVersionText } from './interceptor.ts';
import { RequestStats } from './request-stats.ts';

const NO_LEADER = '14 etcdserver: no leader';
const wantsLeader = { name: 'hasleader', value: 'true' };

function setUp(): {
  client: TestClient;
  server: GrpcServer;
  leader: { known: boolean; isLearner: boolean };
  interceptor: Interceptor;
  text: () => Promise<string[]>;
} {
  const leader = { known: true, isLearner: false };
  const interceptor = new Interceptor(
    () => leader.known,
    () => leader.isLearner,
  );
  const logger = new Logger({
    level: 'info',
    format: 'json',
    sink: { write: () => {}, flush: () => {} },
    now: () => 0,
  });
  const options = { serverVersion: '3.7.1', runtimeVersion: 'test', extensive: false, features: [] };
  const metrics = new Metrics(options, async (families) => new RuntimeMetrics(families, 'test', processReader));
  const router = echoRouter();
  const stats = new RequestStats(logger, 300, () => 0);
  const server = new GrpcServer(
    grpcServerOptions({
      router,
      clock: { nowMs: () => 0 },
      schedule: () => {},
      gate: interceptor,
      observer: callObserver(metrics, router, stats, () => 0),
    }),
  );
  const clientVersions = async (): Promise<string[]> =>
    (await metrics.text()).split('\n').filter((line) => line.startsWith('etcd_server_client_requests_total'));
  return { client: new TestClient(server).open(), server, leader, interceptor, text: clientVersions };
}

test('without a leader: calls that want one are refused, others are not, and open streams end after three elections', () => {
  const { client, server, leader, interceptor } = setUp();
  const call = (method: string, ...fields: { name: string; value: string }[]): string => {
    const id = client.newId();
    const flags = method === 'Bidi' ? 0 : 1;
    client.send(client.callHeaders(id, method, fields), frameOf(0, flags, id, grpcMessage('x')));
    return answerOf(client.frames(), id);
  };
  assert.equal(call('Unary', wantsLeader), 'OK x');
  const streams = [wantsLeader, { name: 'hasleader', value: 'false' }].map((field) => {
    const id = client.newId();
    client.send(client.callHeaders(id, 'Bidi', [field]));
    return id;
  });
  leader.known = false;
  assert.equal(call('Unary', wantsLeader), NO_LEADER);
  assert.equal(call('Bidi', wantsLeader), NO_LEADER);
  assert.equal(call('Unary'), 'OK x');
  assert.equal(call('Unary', { name: 'hasleader', value: 'True' }), 'OK x', 'etcd takes the one word');
  // Two leaderless looks, then a leader: nothing has ended.
  assert.deepEqual([interceptor.isLeaderless(), interceptor.isLeaderless()], [false, false]);
  leader.known = true;
  assert.equal(interceptor.isLeaderless(), false);
  leader.known = false;
  const looks = [1, 2, 3, 4].map(() => interceptor.isLeaderless());
  assert.deepEqual(looks, [false, false, true, true]);
  server.endRefused();
  server.flushQueue.flushAll();
  const frames = client.frames();
  assert.equal(answerOf(frames, streams[0]!), NO_LEADER);
  assert.equal(answerOf(frames, streams[1]!), 'nothing');
});

test('a learner serves its status, a snapshot and ranges alone; the refusal comes before all others', () => {
  const { client, leader, interceptor } = setUp();
  leader.isLearner = true;
  const served = ['/etcdserverpb.KV/Range', '/etcdserverpb.Maintenance/Snapshot', '/etcdserverpb.Maintenance/Status'];
  for (const path of served) assert.equal(interceptor.methodRefusal(path), null, path);
  const refused = ['/etcdserverpb.KV/RangeStream', '/etcdserverpb.Cluster/MemberList', '/grpc.health.v1.Health/Check'];
  for (const path of refused) assert.equal(interceptor.methodRefusal(path)?.code, 9, path);
  leader.known = false;
  const id = client.newId();
  client.send(client.callHeaders(id, 'Unary', [wantsLeader]), frameOf(0, 1, id, grpcMessage('x')));
  assert.equal(answerOf(client.frames(), id), '9 etcdserver: rpc not supported for learner');
  leader.isLearner = false;
  for (const path of refused) assert.equal(interceptor.methodRefusal(path), null, path);
});

test('client-api-version: counted by version and kind, refused ones too; what is no UTF-8 is refused and not counted', async () => {
  const { client, leader, text } = setUp();
  const version = (value: string): { name: string; value: string } => ({ name: 'client-api-version', value });
  const call = (method: string, ...fields: { name: string; value: string }[]): string => {
    const id = client.newId();
    client.send(client.callHeaders(id, method, fields), frameOf(0, 1, id, grpcMessage('x')));
    return answerOf(client.frames(), id);
  };
  call('Unary');
  call('Unary', version('3.7'));
  call('Bidi', version('3.7'));
  assert.equal(call('Unary', version('\u00ff')), '3 etcdserver: invalid client api version');
  leader.known = false;
  assert.equal(call('Unary', version('3.6'), wantsLeader), NO_LEADER);
  assert.equal(call('Bidi', version('3.6'), wantsLeader), NO_LEADER);
  assert.equal(call('Unary', version('\u00ff'), wantsLeader), '3 etcdserver: invalid client api version');
  const counted = [
    ['unary', 'unknown'],
    ['unary', '3.7'],
    ['stream', '3.7'],
    ['unary', '3.6'],
    ['stream', '3.6'],
  ].map(([type, label]) => `etcd_server_client_requests_total{client_api_version="${label}",type="${type}"} 1`);
  assert.deepEqual((await text()).sort(), counted.sort());
  // Bytes as HTTP/2 brings them, one a character: "ü" is two of them.
  assert.deepEqual(['3.7', '\u00c3\u00bc', '\u00c3', '\u00fc'].map(isVersionText), [true, true, false, false]);
});
