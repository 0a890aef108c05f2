// Goal: refusals equal real etcd's: exit code, first line of stderr, and the error in the log. Method: inputs that etcd refuses
// before it touches disk or network, run on the binary (~/.cache/keelson/bin/etcd, test-e2e/peers/build.sh) and on loadConfig.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { planStart } from '../server/start-plan.ts';
import { Logger } from '../telemetry/logger.ts';
import { silentRequests } from '../testing/silent-transport.ts';
import { loadConfig } from './load.ts';

const binary = join(homedir(), '.cache/keelson/bin/etcd');
const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });
const scratch = mkdtempSync(join(tmpdir(), 'keelson-load-'));

interface Refusal {
  readonly code: number;
  readonly stderr: string;
  readonly error: string;
}

function errorOf(lines: readonly Record<string, unknown>[]): string {
  const line = lines.find((entry) =>
    ['failed to verify flags', 'discovery failed', 'failed to create token provider'].includes(String(entry['msg'])),
  );
  return String(line?.['error'] ?? '');
}

function etcd(args: readonly string[], env: Record<string, string>): Refusal {
  const result = spawnSync(binary, args, { env, cwd: scratch, timeout: 10_000, encoding: 'utf8' });
  const lines: Record<string, unknown>[] = [];
  let plain = '';
  for (const line of result.stderr.split('\n')) {
    if (line.startsWith('{')) lines.push(JSON.parse(line) as Record<string, unknown>);
    else if (plain === '') plain = line;
  }
  return { code: result.status ?? -1, stderr: plain, error: errorOf(lines) };
}

async function ours(args: readonly string[], env: Record<string, string>): Promise<Refusal> {
  const result = await loadConfig({
    argv: [binary, ...args],
    env,
    readFile: (path) => readFileSync(path, 'utf8'),
    defaultHost: () => null,
    nodeVersion: 'v26',
    platform: 'linux',
    arch: 'x64',
  });
  if (result.kind === 'run') {
    const { config } = result;
    try {
      await planStart({ config, logger: silent, peerRequests: silentRequests });
      return { code: 0, stderr: '', error: '' };
    } catch (error) {
      return { code: 1, stderr: '', error: (error as Error).message };
    }
  }
  const lines = result.notices.list.map((notice) => ({ msg: notice.msg, ...notice.fields }));
  return { code: result.code, stderr: result.stderr.split('\n')[0] ?? '', error: errorOf(lines) };
}

const free = [
  '--listen-peer-urls=http://127.0.0.1:0',
  '--listen-client-urls=http://127.0.0.1:0',
  '--advertise-client-urls=http://127.0.0.1:1',
  '--name=n1',
  `--data-dir=${join(scratch, 'data')}`,
];

const commandLines: readonly (readonly string[])[] = [
  ...[
    '--foo',
    '-foo=1',
    '---a',
    '-=a',
    '--=',
    '--discovery=x',
    '--discovery-proxy=x',
    '--enable-v2',
    '--experimental-enable-lease-checkpoint',
  ].map((arg) => [arg]),
  ...[
    '-quota-backend-bytes=16MB',
    '--quota-backend-bytes',
    '--quota-backend-bytes=',
    '--quota-backend-bytes=9223372036854775808',
    '--quota-backend-bytes=08',
  ].map((arg) => [arg]),
  ...[
    '--pre-vote=maybe',
    '--pre-vote=',
    '--heartbeat-interval=-1',
    '--heartbeat-interval=1.5',
    '--max-txn-ops=0x',
    '--max-learners=99999999999999999999',
  ].map((arg) => [arg]),
  ...[
    '--max-concurrent-streams=5000000000',
    '--max-concurrent-streams=x',
    '--max-concurrent-streams=-1',
    '--grpc-keepalive-min-time=5',
    '--grpc-keepalive-min-time=1x',
  ].map((arg) => [arg]),
  ...[
    '--initial-cluster-state=bar',
    '--v2-deprecation=bar',
    '--v2-deprecation=gone,x',
    '--discovery-fallback=x',
    '--feature-gates=Foo=true',
    '--feature-gates=LeaseCheckpoint',
    '--feature-gates=LeaseCheckpoint=x',
  ].map((arg) => [arg]),
  ...[
    '127.0.0.1:1',
    'localhost:1',
    'http://a',
    'http://a:b',
    'http://a:1/',
    'http://a:1/x',
    'http://a b:1',
    'http://[::1',
    'http://::1:1',
    '%zz',
    'http://%zz:1',
    ':foo',
    'foo://a:1',
    'http://a:1,foo',
    '/a',
    'http://a\u0001:1',
  ].map((url) => [`--listen-client-urls=${url}`]),
  ['--pre-vote', 'false'],
  ['extra'],
  ['-'],
  ['--', '--name=x'],
  ['--discovery-fallback=proxy'],
  ['--election-timeout=100'],
  ['--election-timeout=60000'],
  ['--election-timeout=0'],
  ['--heartbeat-interval=0'],
  ['--listen-client-urls=http://127.0.0.1:1'],
  ['--listen-client-urls='],
  ['--listen-peer-urls=http://foo.com:1'],
  ['--listen-peer-urls=http://:1'],
  ['--listen-peer-urls=http://01.2.3.4:1'],
  ['--listen-metrics-urls=http://foo:1'],
  ['--advertise-client-urls=http://:1'],
  ['--initial-advertise-peer-urls=http://:1'],
  ['--auto-compaction-mode=foo'],
  ['--auto-compaction-mode='],
  ['--discovery-token=x'],
  ['--discovery-endpoints=a'],
  ['--discovery-endpoints=,a', '--discovery-token=x'],
  ['--discovery-srv=x', '--initial-cluster=a=http://a:1'],
  ['--feature-gates=LeaseCheckpointPersist=true'],
  ['--feature-gates=AllAlpha=true,LeaseCheckpoint=false'],
  ['--compact-hash-check-time=0'],
  ['--compact-hash-check-time=-90s'],
  ['--tls-min-version=x'],
  ['--tls-max-version=x'],
  ['--tls-min-version=TLS1.3', '--tls-max-version=TLS1.2'],
  ['--tls-min-version=TLS1.3', '--cipher-suites=TLS_AES_128_GCM_SHA256'],
  ['--log-level=bad'],
  ['--log-format=bad'],
  ['--logger=bad'],
  ['--logger=capnslog'],
  ['--log-outputs=default,stderr'],
  ['--log-outputs=systemd/journal,stderr'],
  ['--enable-log-rotation'],
  ['--enable-log-rotation', '--log-outputs=a,b'],
  ['--enable-distributed-tracing', '--distributed-tracing-sampling-rate=-1'],
  ['--enable-distributed-tracing', '--distributed-tracing-sampling-rate=1000001'],
  ['--config-file=/nope'],
  ['--config-file=/tmp'],
  [...free, '--auto-compaction-retention=foo'],
  [...free, '--auto-compaction-retention=-1'],
  [...free, '--auto-compaction-retention=5'.concat('x')],
  [...free, '--auth-token=foo'],
  [...free, '--initial-cluster=n1=bad'],
  [...free, '--initial-cluster=n2=http://localhost:2380'],
  [...free, '--initial-cluster=n2=http://localhost:2380', '--initial-cluster-state=existing'],
  [...free, '--initial-cluster=n1=http://127.0.0.1:9,n2=http://127.0.0.1:9', '--initial-cluster-state=existing'],
  [...free, '--initial-cluster=n1=http://127.0.0.1:9,n2=http://127.0.0.1:1', '--initial-cluster-state=existing'],
  [...free, '--initial-cluster-state=existing'],
  [...free, '--discovery-endpoints=http://127.0.0.1:1', '--discovery-token=t', '--initial-cluster-state=existing'],
  [...free, '--initial-cluster=n1=http://[::1]:7', '--initial-advertise-peer-urls=http://[0:0::1]:8'],
  [...free, '--initial-cluster=n1=http://127.0.0.1:2380', '--initial-advertise-peer-urls=http://127.0.0.1:2381'],
  [
    ...free,
    '--initial-cluster=n1=http://127.0.0.1:1,n1=http://127.0.0.1:2',
    '--initial-advertise-peer-urls=http://127.0.0.1:1',
  ],
  [
    ...free,
    '--initial-cluster=n1=http://127.0.0.1:1',
    '--initial-advertise-peer-urls=http://127.0.0.1:1,http://127.0.0.1:2',
  ],
  [
    ...free,
    '--initial-cluster=n1=http://127.0.0.1:1,n2=http://127.0.0.1:1',
    '--initial-advertise-peer-urls=http://127.0.0.1:1',
  ],
  [...free, '--listen-metrics-urls=http://127.0.0.1:1', '--listen-client-http-urls=http://127.0.0.1:0'],
];

const environments: readonly (readonly [args: string[], env: Record<string, string>])[] = [
  [[], { ETCD_QUOTA_BACKEND_BYTES: '16MB' }],
  [['--name=b'], { ETCD_NAME: 'a' }],
  [['--name=b'], { ETCD_NAME: '' }],
  [[], { ETCD_LISTEN_PEER_URLS: 'http://h:1', ETCD_FOO: '1' }],
  [[], { ETCD_CONFIG_FILE: '/nope' }],
];

const files: readonly string[] = [
  'heartbeat-interval: 50ms',
  'heartbeat-interval: -1',
  'heartbeat-interval: 1.5',
  'max-concurrent-streams: 5000000000',
  'backend-batch-interval: 5s',
  'pre-vote: 7',
  'pre-vote: "true"',
  'log-outputs: stderr',
  'name: [a]',
  'feature-gates: Foo=true',
  'listen-client-urls: http://foo.com:1',
  'listen-metrics-urls: foo',
  'election-timeout: 100',
  'Election-Timeout: 100',
  'client-transport-security: a',
  'discovery-config: {token: x}',
];

describe('refusals beside etcd', { skip: !existsSync(binary) }, () => {
  after(() => rmSync(scratch, { recursive: true }));

  for (const args of commandLines) {
    it(JSON.stringify(args.filter((arg) => !free.includes(arg))), async () => {
      // A member that was made before its refusal would no longer look at --initial-cluster.
      rmSync(join(scratch, 'data'), { recursive: true, force: true });
      const theirs = etcd(args, {});
      assert.notEqual(theirs.code, -1, 'etcd did not end by itself');
      assert.deepEqual(await ours(args, {}), normalize(theirs));
    });
  }
  for (const [args, env] of environments) {
    it(`${JSON.stringify(env)} ${args.join(' ')}`, async () => {
      assert.deepEqual(await ours(args, env), normalize(etcd(args, env)));
    });
  }
  for (const text of files) {
    it(`file ${text}`, async () => {
      const path = join(scratch, 'config.yaml');
      writeFileSync(path, text);
      assert.deepEqual(await ours([`--config-file=${path}`], {}), normalize(etcd([`--config-file=${path}`], {})));
    });
  }
});

/** Names of Go's structs inside its decoder's errors differ between embedded structs; only the key and the types count. */
function normalize(refusal: Refusal): Refusal {
  return {
    ...refusal,
    error: refusal.error.replace(/configYAML\.(?:configJSON|Config\.configYAML)\./, 'configYAML.Config.'),
  };
}
