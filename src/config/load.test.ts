// Goal: argv, environment and file become the configuration, or the error, that etcd makes of them. Method: tables over
// loadConfig with injected files and variables; load.peer-test.ts holds the same inputs against the real binary.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { flags } from './flags.ts';
import { type LoadResult, loadConfig } from './load.ts';
import type { ServerConfig } from './server-config.ts';
import { startingFields } from './starting-message.ts';
import { etcdVersion, keelsonVersion } from './version.ts';

interface Setting {
  readonly env?: Record<string, string>;
  readonly files?: Record<string, string>;
  readonly host?: string;
}

function load(args: readonly string[], setting: Setting = {}): Promise<LoadResult> {
  return loadConfig({
    argv: ['keelson', ...args],
    env: setting.env ?? {},
    readFile(path: string): string {
      const text = setting.files?.[path];
      if (text === undefined) throw Object.assign(new Error('missing'), { code: 'ENOENT' });
      return text;
    },
    defaultHost: () => setting.host ?? null,
    nodeVersion: 'v26.0.0',
    platform: 'linux',
    arch: 'x64',
  });
}

async function run(args: readonly string[], setting: Setting = {}): Promise<ServerConfig> {
  const result = await load(args, setting);
  assert.equal(result.kind, 'run', JSON.stringify(result.notices.list));
  return (result as Extract<LoadResult, { kind: 'run' }>).config;
}

async function exit(args: readonly string[], setting: Setting = {}): Promise<Extract<LoadResult, { kind: 'exit' }>> {
  const result = await load(args, setting);
  assert.equal(result.kind, 'exit', args.join(' '));
  return result as Extract<LoadResult, { kind: 'exit' }>;
}

function warnings(result: LoadResult): string[] {
  return result.notices.list.filter((notice) => notice.level !== 'info').map((notice) => notice.msg);
}

/** The error field of the line that etcd dies with. */
function refusal(result: LoadResult): unknown {
  const line = result.notices.list.find((notice) =>
    ['failed to verify flags', 'discovery failed'].includes(notice.msg),
  );
  return line?.fields['error'];
}

describe('command line', () => {
  it('takes every form of Go flags', async () => {
    const config = await run([
      '-name=a',
      '--data-dir',
      '/d',
      '-snapshot-count',
      '0x10',
      '--pre-vote=false',
      '--unsafe-no-fsync',
    ]);
    assert.equal(config.name, 'a');
    assert.equal(config.dataDir, '/d');
    assert.equal(config.snapshotEntryCount, 16);
    assert.equal(config.preVote, false);
    assert.equal(config.unsafeNoFsync, true);
    assert.equal((await run(['--name', '--', '--name=b'])).name, 'b');
    assert.equal((await run(['--name', 'x', '--'])).name, 'x');
  });

  it('has all flags of etcd 3.7 once', () => {
    assert.equal(flags.filter((flag) => flag.type !== 'ignored').length, 113);
    assert.equal(flags.filter((flag) => flag.type === 'ignored').length, 15);
    assert.equal(new Set(flags.map((flag) => flag.name)).size, flags.length);
  });

  it('refuses bad flags with exit 2, the error and the usage', async () => {
    const rows: [string[], string][] = [
      [['--foo'], 'flag provided but not defined: -foo'],
      [['--discovery=x'], 'flag provided but not defined: -discovery'],
      [['--experimental-corrupt-check-time=1s'], 'flag provided but not defined: -experimental-corrupt-check-time'],
      [['-quota-backend-bytes=16MB'], 'invalid value "16MB" for flag -quota-backend-bytes: parse error'],
      [['--quota-backend-bytes'], 'flag needs an argument: -quota-backend-bytes'],
      [['--pre-vote=maybe'], 'invalid boolean value "maybe" for -pre-vote: parse error'],
      [['--heartbeat-interval', '-1'], 'invalid value "-1" for flag -heartbeat-interval: parse error'],
      [
        ['--max-learners=99999999999999999999'],
        'invalid value "99999999999999999999" for flag -max-learners: value out of range',
      ],
      [
        ['--max-concurrent-streams=5000000000'],
        'invalid value "5000000000" for flag -max-concurrent-streams: strconv.ParseUint: parsing "5000000000": value out of range',
      ],
      [['--grpc-keepalive-min-time=5'], 'invalid value "5" for flag -grpc-keepalive-min-time: parse error'],
      [['--initial-cluster-state=bar'], 'invalid value "bar" for flag -initial-cluster-state: invalid value'],
      [['--v2-deprecation=bar'], 'invalid value "bar" for flag -v2-deprecation: invalid value "bar"'],
      [
        ['--feature-gates=Foo=true'],
        'invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo',
      ],
      [['---a'], 'bad flag syntax: ---a'],
      [['-=a'], 'bad flag syntax: -=a'],
      [
        ['--listen-client-urls=127.0.0.1:1'],
        'invalid value "127.0.0.1:1" for flag -listen-client-urls: parse "127.0.0.1:1": first path segment in URL cannot contain colon',
      ],
      [
        ['--listen-client-urls=http://a:1/x'],
        'invalid value "http://a:1/x" for flag -listen-client-urls: URL must not contain a path: http://a:1/x',
      ],
    ];
    for (const [args, error] of rows) {
      const result = await exit(args);
      assert.equal(result.code, 2, args.join(' '));
      assert.equal(result.stderr.split('\n')[0], error);
      assert.match(result.stderr, /\nUsage:\n/);
    }
  });

  it('refuses what flags must not say together with exit 1', async () => {
    const rows: [string[], string][] = [
      [['--pre-vote', 'false'], '"false" is not a valid flag'],
      [['extra'], '"extra" is not a valid flag'],
      [
        ['--discovery-fallback=proxy'],
        `v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`,
      ],
      [
        ['--election-timeout=100'],
        '--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]',
      ],
      [['--election-timeout=60000'], '--election-timeout[60000ms] is too long, and should be set less than 50000ms'],
      [
        ['--listen-client-urls=http://127.0.0.1:1'],
        '--advertise-client-urls is required when --listen-client-urls is set explicitly',
      ],
      [['--listen-peer-urls=http://foo.com:1'], 'expected IP in URL for binding (http://foo.com:1)'],
      [['--listen-peer-urls=http://:1'], 'expected IP in URL for binding (http://:1)'],
      [['--auto-compaction-mode=foo'], 'unknown auto-compaction-mode "foo"'],
      [['--auto-compaction-retention=foo'], 'error parsing CompactionRetention: time: invalid duration "foo"'],
      [['--discovery-token=x'], 'both --discovery-token and --discovery-endpoints must be set'],
      [
        ['--feature-gates=LeaseCheckpointPersist=true'],
        'enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint',
      ],
      [['--compact-hash-check-time=0'], '--compact-hash-check-time must be >0 (set to 0s)'],
      [['--max-learners=-1'], '--max-learners must be >=0 (set to -1)'],
      [['--corrupt-check-time=-1s'], '--corrupt-check-time must be >=0 (set to -1s)'],
      [['--tls-min-version=x'], 'unexpected TLS version "x" (must be one of: TLS1.2, TLS1.3)'],
      [
        ['--tls-min-version=TLS1.3', '--tls-max-version=TLS1.2'],
        'min version (TLS1.3) is greater than max version (TLS1.2)',
      ],
      [['--log-format=bad'], 'unknown log format: bad, supported values json, console'],
      [['--log-outputs=default,stderr'], 'multi logoutput for "default" is not supported yet'],
      [['--auth-token=foo'], 'auth: invalid auth options'],
    ];
    for (const [args, error] of rows) {
      const result = await exit(args);
      assert.equal(result.code, 1, args.join(' '));
      assert.equal(refusal(result), error);
    }
    const level = await exit(['--log-level=bad']);
    assert.deepEqual([level.code, level.stderr], [2, 'panic: unrecognized level: "bad"\n']);
  });

  it('prints versions and help', async () => {
    const version = await exit(['--force=5', '--vv', '--version']);
    assert.equal(version.code, 0);
    assert.match(
      version.stdout,
      /^etcd Version: 3\.7\.1\nGit SHA: .*\nGo Version: .*\nGo OS\/Arch: linux\/amd64\nkeelson Version: /,
    );
    const help = await exit(['-h']);
    assert.equal(help.code, 0);
    for (const flag of flags) assert.ok(help.stdout.includes(`--${flag.name}`), flag.name);
    assert.match(help.stderr, /^Usage:/);
  });
});

describe('values', () => {
  it('resolves defaults', async () => {
    const config = await run([]);
    assert.equal(config.dataDir, 'default.etcd');
    assert.equal(config.snapshotEntryCount, 10000);
    assert.equal(config.quotaBytes, 2 * 1024 ** 3);
    assert.equal(config.backendBatchIntervalMs, 100);
    assert.equal(config.backendBatchLimit, 10000);
    assert.equal((await run(['--backend-batch-limit=0'])).backendBatchLimit, 10000);
    // Not a limit that is always reached: the flusher would have no end of commits.
    assert.equal((await run(['--backend-batch-limit=-1'])).backendBatchLimit, 1);
    assert.equal(config.electionTickCount, 10);
    assert.equal(config.requestBytesMax, 1572864);
    assert.equal(config.concurrentStreamsMax, 4294967295);
    assert.equal(config.keepaliveIntervalMs, 7_200_000);
    assert.equal(config.watchProgressNotifyIntervalMs, 600_000);
    assert.deepEqual(config.autoCompaction, { mode: 'off' });
    assert.deepEqual(config.log, { level: 'info', format: 'json', outputs: ['stderr'] });
    assert.deepEqual([...config.initialCluster.keys()], ['default']);
    assert.equal(config.bootstrapError, null);
    assert.deepEqual(config.cors, ['*']);
    const fields = startingFields(config, { nodeVersion: 'v26', platform: 'linux', arch: 'x64', cpuCount: 2 }, false);
    assert.equal(fields['heartbeat-interval'], '100ms');
    assert.equal(fields['initial-cluster'], 'default=http://localhost:2380');
  });

  it('reads quotas, compaction and gates', async () => {
    assert.equal((await run(['--quota-backend-bytes=-1'])).quotaBytes, null);
    assert.equal((await run(['--quota-backend-bytes=16777216'])).quotaBytes, 16777216);
    const big = await load(['--quota-backend-bytes=9000000000', '--max-request-bytes=20000000']);
    assert.ok(warnings(big).includes('quota exceeds the maximum value'));
    assert.ok(warnings(big).includes('exceeded recommended request limit'));
    const periodic = await run(['--auto-compaction-retention=2']);
    assert.deepEqual(periodic.autoCompaction, { mode: 'periodic', retentionMs: 7_200_000 });
    const minutes = await run(['--auto-compaction-retention=5m']);
    assert.deepEqual(minutes.autoCompaction, { mode: 'periodic', retentionMs: 300_000 });
    const revision = await run(['--auto-compaction-mode=revision', '--auto-compaction-retention=1000']);
    assert.deepEqual(revision.autoCompaction, { mode: 'revision', retentionRevisions: 1000 });
    const gates = (
      await run(['--feature-gates=AllAlpha=true,CompactHashCheck=false', '--feature-gates=FastLeaseKeepAlive=false'])
    ).features;
    assert.equal(gates.enabled('LeaseCheckpoint'), true);
    assert.equal(gates.enabled('CompactHashCheck'), false);
    assert.equal(gates.enabled('FastLeaseKeepAlive'), false);
    assert.equal(gates.enabled('TxnModeWriteWithSharedBuffer'), true);
  });

  it('makes the initial cluster of the name, and says what is wrong with one that cannot be read', async () => {
    const named = await run(['--name=abc']);
    assert.deepEqual([...named.initialCluster.keys()], ['abc']);
    assert.equal(named.bootstrapError, null);
    const bad = await run(['--name=a', '--initial-cluster=a=bad']);
    assert.equal(
      bad.bootstrapError,
      'error setting up initial cluster: URL scheme must be http, https, unix, or unixs: bad',
    );
    const three = await run(['--name=a', '--initial-cluster=a=http://localhost:2380,b=http://127.0.0.1:2']);
    assert.equal(three.bootstrapError, null);
    assert.deepEqual([...three.initialCluster.keys()], ['a', 'b']);
  });

  it('reads discovery, and leaves the initial cluster to it', async () => {
    assert.equal((await run([])).discovery, null);
    const endpoints = '--discovery-endpoints=http://a:1,b:2';
    const plain = await run([endpoints, '--discovery-token=t', '--discovery-dial-timeout=1s']);
    assert.deepEqual(plain.discovery, {
      ...{ endpoints: ['b:2', 'http://a:1'], token: 't', user: null, tls: null },
      ...{ dialTimeoutMs: 1000, requestTimeoutMs: 5000, keepAliveMs: 2000, keepAliveTimeoutMs: 6000 },
    });
    assert.equal(plain.initialCluster.size, 0);
    assert.equal(plain.bootstrapError, null);
    const secure = ['--discovery-insecure-transport=false', '--discovery-user=u', '--discovery-password=p'];
    const { discovery } = await run([endpoints, '--discovery-token=t', ...secure]);
    assert.deepEqual(discovery?.user, { name: 'u', password: 'p' });
    assert.deepEqual(discovery?.tls, { certFile: '', keyFile: '', caFile: '', skipVerify: false });
    const srv = await run(['--discovery-srv=example.com', '--discovery-srv-name=x']);
    assert.deepEqual([srv.discoverySrv, srv.discoverySrvName], ['example.com', 'x']);
    assert.equal(srv.initialCluster.size, 0);
  });

  it('advertises the host for a listener on 0.0.0.0', async () => {
    const args = ['--listen-client-urls=http://0.0.0.0:7', '--advertise-client-urls=http://localhost:2379'];
    assert.equal((await run(args, { host: '10.1.2.3' })).advertiseClientUrls[0]?.text, 'http://10.1.2.3:7');
    assert.equal((await run(args)).advertiseClientUrls[0]?.text, 'http://localhost:2379');
  });

  it('keeps the package version', () => {
    const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
    assert.equal((JSON.parse(text) as { version: string }).version, keelsonVersion);
    assert.match(etcdVersion, /^3\.7\.\d+$/);
  });
});

describe('environment', () => {
  it('stands behind the command line, KEELSON_ before ETCD_', async () => {
    const env = { ETCD_NAME: 'etcd', KEELSON_NAME: 'keelson', ETCD_SNAPSHOT_COUNT: '7', PATH: '/bin' };
    assert.equal((await run([], { env })).name, 'keelson');
    assert.equal((await run([], { env })).snapshotEntryCount, 7);
    assert.equal((await run(['--name=flag'], { env: { KEELSON_NAME: 'keelson' } })).name, 'flag');
    assert.equal((await run([], { env: { ETCD_NAME: '' } })).name, 'default');
  });

  it('dies of an ETCD_ variable beside its flag, as etcd', async () => {
    const result = await exit(['--name=flag'], { env: { ETCD_NAME: 'etcd' } });
    assert.equal(result.code, 1);
    assert.equal(result.notices.list.at(-1)?.level, 'fatal');
    assert.match(warnings(result).at(-1) ?? '', /shadowed by corresponding command-line flag/);
  });

  it('warns about unknown variables and names the bad one', async () => {
    const result = await load([], { env: { ETCD_FOO: '1', ETCD_VERSION: '3', KEELSON_BAR: '2', OTHER: '3' } });
    assert.equal(result.kind, 'run');
    const lines = result.notices.list.filter((notice) => notice.msg === 'unrecognized environment variable');
    assert.deepEqual(
      lines.map((notice) => notice.fields['environment-variable']),
      ['ETCD_FOO=1', 'KEELSON_BAR=2'],
    );
    assert.ok(warnings(result).includes('cannot set special environment variable'));
    const bad = await exit([], { env: { ETCD_QUOTA_BACKEND_BYTES: '16MB' } });
    assert.equal(bad.code, 1);
    assert.equal(refusal(bad), 'invalid value "16MB" for ETCD_QUOTA_BACKEND_BYTES: parse error');
  });
});

describe('configuration file', () => {
  const file = (text: string): Promise<LoadResult> => load(['--config-file=/c'], { files: { '/c': text } });

  it('replaces flags and variables', async () => {
    const yaml = `name: 123
heartbeat-interval: 200
Election-Timeout: 2000
backend-batch-interval: 50000000
listen-client-urls: http://127.0.0.1:1, http://127.0.0.1:2
pre-vote: no
log-outputs: [stdout]
host-whitelist: "b,a"
feature-gates: LeaseCheckpoint=true
unknown-key: {a: 1}
socket-options: {reuse-port: true}
initial-cluster: 123=http://localhost:2380
`;
    const env = { ETCD_NAME: 'ignored', ETCD_FOO: '1' };
    const config = await run(['--config-file', '/c', '--name=ignored'], { files: { '/c': yaml }, env });
    assert.equal(config.name, '123');
    assert.equal(config.heartbeatIntervalMs, 200);
    assert.equal(config.electionTimeoutMs, 2000);
    assert.equal(config.backendBatchIntervalMs, 50);
    assert.equal(config.listenClientUrls.length, 2);
    assert.equal(config.preVote, false);
    assert.deepEqual(config.log.outputs, ['stdout']);
    assert.deepEqual(config.hostWhitelist, ['a', 'b']);
    assert.equal(config.features.enabled('LeaseCheckpoint'), true);
    assert.equal(config.socketReusePort, true);
    assert.equal(
      (await run([], { files: { '/c': '{"name": "json"}' }, env: { ETCD_CONFIG_FILE: '/c' } })).name,
      'json',
    );
    assert.equal((await run(['--config-file=/c'], { files: { '/c': '' } })).name, 'default');
  });

  it('refuses bad files', async () => {
    assert.equal(refusal(await exit(['--config-file=/nope'])), 'open /nope: no such file or directory');
    assert.equal(
      refusal(await file('heartbeat-interval: 50ms')),
      'error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.heartbeat-interval of type uint',
    );
    assert.match(String(refusal(await file('heartbeat-interval: -1'))), /cannot unmarshal number -1 .* of type uint$/);
    assert.match(String(refusal(await file('pre-vote: 7'))), /cannot unmarshal number into .* of type bool$/);
    assert.match(String(refusal(await file('a: [1'))), /^error converting YAML to JSON: yaml: /);
    assert.match(String(refusal(await file('name: a\nname: b'))), /^error converting YAML to JSON: yaml: /);
    assert.equal(refusal(await file('feature-gates: Foo=true')), 'unrecognized feature gate: Foo');
    const url = await file('listen-metrics-urls: foo');
    assert.equal(
      url.kind === 'exit' && url.stderr,
      'unexpected error setting up listen-metrics-urls: URL scheme must be http, https, unix, or unixs: foo\n',
    );
    const tls = await file('client-transport-security: {cert-file: a, key-file: b}');
    assert.equal(tls.kind, 'exit');
    assert.ok(warnings(tls).includes('flag is not supported yet'));
  });
});

describe('unsupported', () => {
  it('never ignores a security flag', async () => {
    const rows = [
      ['--cert-file=a'],
      ['--auto-tls'],
      ['--client-cert-auth'],
      ['--peer-trusted-ca-file=a'],
      ['--client-crl-file=a'],
      ['--cipher-suites=TLS_AES_128_GCM_SHA256'],
      ['--listen-peer-urls=https://127.0.0.1:1'],
      ['--listen-client-urls=https://127.0.0.1:1', '--advertise-client-urls=https://127.0.0.1:1'],
      ['--listen-metrics-urls=https://127.0.0.1:1'],
      ['--auth-token=jwt,pub-key=a,priv-key=b,sign-method=RS256'],
    ];
    for (const args of rows) {
      const result = await exit(args);
      assert.equal(result.code, 1, args.join(' '));
      assert.ok(
        result.notices.list.some((notice) => notice.level === 'fatal' && /not supported yet/.test(notice.msg)),
        args.join(' '),
      );
    }
  });

  it('warns about what has no effect and accepts defaults said aloud', async () => {
    for (const args of [['--enable-pprof'], ['--memory-mlock'], ['--enable-distributed-tracing']]) {
      const result = await load(args);
      assert.equal(result.kind, 'run');
      assert.ok(warnings(result).includes('flag is not supported yet'), args.join(' '));
    }
    const quiet = await load([
      '--client-cert-auth=false',
      '--cert-file=',
      '--tls-min-version=TLS1.2',
      '--cipher-suites=',
      '--max-snapshots=5',
    ]);
    assert.equal(quiet.kind, 'exit', 'an empty suite is an unknown suite in etcd');
    const fine = await load(['--client-cert-auth=false', '--cert-file=', '--enable-pprof=false', '--max-snapshots=5']);
    assert.equal(fine.kind, 'run');
    assert.ok(!warnings(fine).includes('flag is not supported yet'));
    assert.ok(warnings(fine).some((msg) => msg.startsWith('--max-snapshots is deprecated')));
  });
});
