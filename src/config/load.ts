// From argv, environment and file to a ServerConfig, or to the reason why the process must end: the order of steps, the log
// lines and the exit codes are those of etcd's startEtcdOrProxyV2 (server/etcdmain). Pure: files, host address and versions
// are injected, and nothing is printed here.

import { applyConfigFile } from './config-file.ts';
import { applyEnvironment, type Environment, fromEnvironment } from './environment.ts';
import { FlagSet, parseArguments } from './flag-set.ts';
import { deprecatedFlags } from './flags.ts';
import { goQuote, humanBytes } from './go-value.ts';
import { flagsText, usageText } from './help.ts';
import { type InitialCluster, parseInitialCluster } from './initial-cluster.ts';
import { type MemberUrl, parseMemberUrl } from './member-url.ts';
import { Notices } from './notice.ts';
import { buildServerConfig, type LogConfig, logConfig, type ServerConfig } from './server-config.ts';
import { unsupportedUses } from './unsupported.ts';
import {
  advertiseUnsetError,
  checkAuthToken,
  checkLogLevel,
  parseAutoCompaction,
  validate,
  validateListeners,
} from './validate.ts';
import { versionText } from './version.ts';

export interface LoadInput {
  /** The program's name and its arguments, as logged. */
  readonly argv: readonly string[];
  readonly env: Environment;
  /** Throws an error with `code` as node:fs does. */
  readFile(path: string): string;
  /** The address of the default route's interface, or null. */
  defaultHost(): string | null;
  readonly nodeVersion: string;
  readonly platform: string;
  readonly arch: string;
}

/** A configuration to run, or what to print before ending with `code`. Notices are logged first in both cases. */
export type LoadResult =
  | { readonly kind: 'run'; readonly config: ServerConfig; readonly notices: Notices }
  | {
      readonly kind: 'exit';
      readonly code: number;
      readonly stdout: string;
      readonly stderr: string;
      readonly notices: Notices;
      readonly log: LogConfig;
    };

const defaultUrl = { peer: 'http://localhost:2380', client: 'http://localhost:2379' } as const;
const defaultInitialCluster = `default=${defaultUrl.peer}`;
const fallbackLog: LogConfig = { level: 'info', format: 'json', outputs: ['stderr'] };
const requestBytesRecommendedMax: number = 10 * 1024 * 1024;
const quotaBytesRecommendedMax: number = 8 * 1024 ** 3;

export async function loadConfig(input: LoadInput): Promise<LoadResult> {
  const notices = new Notices();
  const flags = new FlagSet();
  const exit = (
    code: number,
    out: { stdout?: string; stderr?: string } = {},
    log: LogConfig = fallbackLog,
  ): LoadResult => ({
    kind: 'exit',
    code,
    stdout: out.stdout ?? '',
    stderr: out.stderr ?? '',
    notices,
    log,
  });
  const parsed = parseArguments(input.argv.slice(1), flags);
  if (parsed.kind === 'error') return exit(2, { stderr: `${parsed.error}\n${usageText}` });
  if (parsed.kind === 'help') return exit(0, { stdout: flagsText(), stderr: usageText });
  const refuse = (error: string, log: LogConfig = fallbackLog): LoadResult => {
    notices.add('info', 'config/load.ts:76', 'Running: ', { args: input.argv });
    notices.add('warn', 'config/load.ts:77', 'failed to verify flags', { error });
    if (error === advertiseUnsetError)
      notices.add('warn', 'config/load.ts:79', 'advertise client URLs are not set', { error });
    return exit(1, {}, log);
  };
  if (parsed.rest.length > 0) return refuse(`${goQuote(parsed.rest[0]!)} is not a valid flag`);
  if (flags.bool('version')) return exit(0, { stdout: versionText(input.nodeVersion, input.platform, input.arch) });

  const source = await readSource(input, flags, notices);
  if (source.kind === 'conflict') return exit(1);
  if (source.kind === 'printed') return exit(1, { stderr: `${source.error}\n` });
  if (source.kind === 'error') return refuse(source.error);
  const levelError = checkLogLevel(source.flags);
  if (levelError !== null) return exit(2, { stderr: `panic: ${levelError}\n` });
  const log = logConfig(source.flags);
  const error = validate(source.flags, source.advertiseUnset, notices);
  noteDeprecated(source.flags, notices);
  if (error !== null) return refuse(error, log);
  notices.add('info', 'config/load.ts:95', 'Running: ', { args: input.argv });
  return finish(input, source.flags, notices, (code, out) => exit(code, out, log));
}

type Source =
  | { readonly kind: 'read'; readonly flags: FlagSet; readonly advertiseUnset: boolean }
  | { readonly kind: 'error'; readonly error: string }
  | { readonly kind: 'printed'; readonly error: string }
  | { readonly kind: 'conflict' };

/** The configuration file alone when there is one, else the command line with the environment. */
async function readSource(input: LoadInput, commandLine: FlagSet, notices: Notices): Promise<Source> {
  const path = commandLine.string('config-file') || fromEnvironment(input.env, 'config-file');
  return path === '' ? readCommandLine(input, commandLine, notices) : readConfigFile(input, path, notices);
}

async function readConfigFile(input: LoadInput, path: string, notices: Notices): Promise<Source> {
  const flags = new FlagSet();
  let text: string;
  try {
    text = input.readFile(path);
  } catch (error) {
    return { kind: 'error', error: fileError(path, error as NodeJS.ErrnoException) };
  }
  const failure = await applyConfigFile(text, flags);
  if (failure !== null) return { kind: failure.kind === 'printed' ? 'printed' : 'error', error: failure.error };
  const msg =
    'loaded server configuration, other configuration command line flags and environment variables will be ignored if provided';
  notices.add('info', 'config/load.ts:123', msg, { path });
  const discovers = flags.string('discovery-srv') !== '' || flags.strings('discovery-endpoints').length > 0;
  if (discovers && flags.string('initial-cluster') === defaultInitialCluster) flags.assign('initial-cluster', '');
  return { kind: 'read', flags, advertiseUnset: false };
}

const errnoTexts: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  ENOTDIR: 'not a directory',
};

function fileError(path: string, error: NodeJS.ErrnoException): string {
  if (error.code === 'EISDIR') return `read ${path}: is a directory`;
  return `open ${path}: ${errnoTexts[error.code ?? ''] ?? error.message}`;
}

function readCommandLine(input: LoadInput, flags: FlagSet, notices: Notices): Source {
  const applied = applyEnvironment(input.env, flags, notices);
  if (applied.kind === 'conflict') return { kind: 'conflict' };
  if (applied.kind === 'error') return applied;
  for (const way of ['read', 'write']) {
    if (flags.milliseconds(`raft-${way}-timeout`) < 5000)
      notices.add('info', 'config/load.ts:146', `raft-${way}-timeout increased to minimum value: 5s`);
  }
  const discovers =
    flags.string('discovery-srv') !== '' ||
    flags.string('discovery-srv-name') !== '' ||
    flags.strings('discovery-endpoints').length > 0;
  if (discovers && !flags.given.has('initial-cluster')) {
    flags.assign('initial-cluster', '');
    flags.given.delete('initial-cluster');
  }
  if (flags.string('discovery-fallback') === 'proxy')
    return {
      kind: 'error',
      error: `v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`,
    };
  const advertiseUnset = flags.given.has('listen-client-urls') && !flags.given.has('advertise-client-urls');
  return { kind: 'read', flags, advertiseUnset };
}

function noteDeprecated(flags: FlagSet, notices: Notices): void {
  for (const [name, msg] of deprecatedFlags) if (flags.given.has(name)) notices.add('warn', 'config/load.ts:166', msg);
}

type Exit = (code: number, out?: { stdout?: string; stderr?: string }) => LoadResult;

/** The steps after validation: what is not there yet, default addresses, the initial cluster, and the late checks. */
function finish(input: LoadInput, flags: FlagSet, notices: Notices, exit: Exit): LoadResult {
  const unsupported = unsupportedUses(flags);
  for (const use of unsupported) {
    const level = use.action === 'error' ? 'fatal' : 'warn';
    notices.add(level, 'config/load.ts:176', 'flag is not supported yet', { flag: use.flag, reason: use.reason });
  }
  if (unsupported.some((use) => use.action === 'error')) return exit(1);
  const advertised = defaultAddresses(input, flags, notices);
  const dataDir = flags.string('data-dir') || `${flags.string('name')}.etcd`;
  if (flags.string('data-dir') === '')
    notices.add('warn', 'config/load.ts:182', "'data-dir' was empty; using default", { 'data-dir': dataDir });
  const autoCompaction = parseAutoCompaction(flags);
  const lateError =
    validateListeners(flags) ?? (typeof autoCompaction === 'string' ? autoCompaction : null) ?? checkAuthToken(flags);
  if (lateError !== null || typeof autoCompaction === 'string') {
    notices.add('fatal', 'config/load.ts:187', 'discovery failed', { error: lateError ?? '' });
    return exit(1);
  }
  const bootstrap = readInitialCluster(advertised);
  const config = buildServerConfig(flags, {
    dataDir,
    advertisePeerUrls: advertised.peer,
    advertiseClientUrls: advertised.client,
    initialCluster: bootstrap.cluster,
    bootstrapError: bootstrap.error,
    autoCompaction,
  });
  noteLimits(config, flags, notices);
  return { kind: 'run', config, notices };
}

interface Advertised {
  readonly peer: readonly MemberUrl[];
  readonly client: readonly MemberUrl[];
  readonly initialCluster: string;
}

/**
 * etcd's UpdateDefaultClusterFromName: a default advertised URL over a listener on 0.0.0.0 becomes the host's own address, and
 * a default initial cluster takes the given name.
 */
function defaultAddresses(input: LoadInput, flags: FlagSet, notices: Notices): Advertised {
  const host = input.defaultHost();
  const replace = (advertise: string, listen: string, byDefault: string): readonly MemberUrl[] => {
    const urls = flags.urls(advertise);
    const listener = flags.urls(listen)[0];
    const isDefault = urls.length === 1 && urls[0]!.text === byDefault;
    if (host === null || !isDefault || listener?.host !== '0.0.0.0') return urls;
    const parsed = parseMemberUrl(`http://${host.includes(':') ? `[${host}]` : host}:${listener.port}`);
    return parsed.ok ? [parsed.value] : urls;
  };
  const peer = replace('initial-advertise-peer-urls', 'listen-peer-urls', defaultUrl.peer);
  const client = replace('advertise-client-urls', 'listen-client-urls', defaultUrl.client);
  if (
    host !== null &&
    (peer !== flags.urls('initial-advertise-peer-urls') || client !== flags.urls('advertise-client-urls'))
  )
    notices.add('info', 'config/load.ts:229', 'detected default host for advertise', { host });
  const given = flags.string('initial-cluster');
  const name = flags.string('name');
  const followsName = name !== 'default' && given === defaultInitialCluster;
  const own = peer.map((url) => `${name === '' ? 'default' : name}=${url.text}`).join(',');
  return { peer, client, initialCluster: followsName ? own : given };
}

function readInitialCluster(advertised: Advertised): {
  readonly cluster: InitialCluster;
  readonly error: string | null;
} {
  const parsed = parseInitialCluster(advertised.initialCluster);
  if (!parsed.ok) return { cluster: new Map(), error: `error setting up initial cluster: ${parsed.error}` };
  return { cluster: parsed.value, error: null };
}

/** etcd's warnings about sizes over what it recommends, and its line about the quota in force. */
function noteLimits(config: ServerConfig, flags: FlagSet, notices: Notices): void {
  if (config.requestBytesMax > requestBytesRecommendedMax) {
    notices.add('warn', 'config/load.ts:253', 'exceeded recommended request limit', {
      'max-request-bytes': config.requestBytesMax,
      'max-request-size': humanBytes(config.requestBytesMax),
      'recommended-request-bytes': requestBytesRecommendedMax,
      'recommended-request-size': humanBytes(requestBytesRecommendedMax),
    });
  }
  const bcryptCost = flags.number('bcrypt-cost');
  if (bcryptCost !== config.bcryptCost) {
    const fields = { 'min-cost': 4, 'max-cost': 31, 'default-cost': 10, 'given-cost': bcryptCost };
    notices.add('warn', 'config/load.ts:263', 'use default bcrypt cost instead of the invalid given cost', fields);
  }
  noteQuota(config, flags.number('quota-backend-bytes'), notices);
}

function noteQuota(config: ServerConfig, given: number, notices: Notices): void {
  const name = { 'quota-name': 'v3-applier' };
  if (config.quotaBytes === null) {
    notices.add('info', 'config/load.ts:271', 'disabled backend quota', { ...name, 'quota-size-bytes': given });
    return;
  }
  const size = { 'quota-size-bytes': config.quotaBytes, 'quota-size': humanBytes(config.quotaBytes) };
  if (config.quotaBytes > quotaBytesRecommendedMax) {
    notices.add('warn', 'config/load.ts:276', 'quota exceeds the maximum value', {
      ...name,
      ...size,
      'quota-maximum-size-bytes': quotaBytesRecommendedMax,
      'quota-maximum-size': humanBytes(quotaBytesRecommendedMax),
    });
  }
  const msg = config.quotaIsDefault ? 'enabled backend quota with default value' : 'enabled backend quota';
  notices.add('info', 'config/load.ts:284', msg, { ...name, ...size });
}
