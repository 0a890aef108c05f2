// What the flags must satisfy together: etcd's Config.Validate (server/embed/config.go) and setupLogging, check by check in its
// order and with its messages, because the first failure is the one that is reported. Warnings go to the notices in the order
// in which etcd logs them.

import type { FlagSet } from './flag-set.ts';
import { formatDuration, goQuote, parseDuration } from './go-value.ts';
import { checkBindUrls, checkHostUrls, urlTexts } from './member-url.ts';
import type { Notices } from './notice.ts';
import type { AutoCompaction } from './server-config.ts';

/** etcd's advertise URL error; its caller logs one more line for it. */
export const advertiseUnsetError: string =
  '--advertise-client-urls is required when --listen-client-urls is set explicitly';
const electionMsMax = 50000;
const samplingRateMax = 1_000_000;

/** zap's names of levels; anything else panics in etcd. */
const logLevels: ReadonlySet<string> = new Set(['debug', 'info', 'warn', 'error', 'dpanic', 'panic', 'fatal', '']);

/** The level's error, apart from the others: etcd ends with a panic (exit 2) on it. */
export function checkLogLevel(flags: FlagSet): string | null {
  const level = flags.string('log-level');
  return logLevels.has(level.toLowerCase()) ? null : `unrecognized level: ${goQuote(level)}`;
}

/** The first error, or null. `advertiseUnset`: listen-client-urls was given without advertise-client-urls. */
export function validate(flags: FlagSet, advertiseUnset: boolean, notices: Notices): string | null {
  return (
    checkLogging(flags) ??
    checkUrls(flags, advertiseUnset, notices) ??
    checkBootstrapFlags(flags) ??
    checkTimes(flags) ??
    (advertiseUnset ? advertiseUnsetError : null) ??
    checkCompactionMode(flags) ??
    checkTracing(flags) ??
    checkGates(flags, notices) ??
    checkHashCheckTime(flags) ??
    checkName(flags, notices) ??
    checkTlsVersions(flags) ??
    checkSigns(flags)
  );
}

/** Numbers that etcd takes for granted to be none below zero: it fails later with "too many learner members", or panics. */
function checkSigns(flags: FlagSet): string | null {
  const learners = flags.number('max-learners');
  if (learners < 0) return `--max-learners must be >=0 (set to ${learners})`;
  const time = flags.nanoseconds('corrupt-check-time');
  return time < 0n ? `--corrupt-check-time must be >=0 (set to ${formatDuration(time)})` : null;
}

function checkLogging(flags: FlagSet): string | null {
  const logger = flags.string('logger');
  if (logger === 'capnslog') return '--logger=capnslog is removed in v3.5';
  if (logger !== 'zap') return `unknown logger option ${goQuote(logger)}`;
  const outputs = flags.strings('log-outputs');
  if (outputs.length > 1 && outputs.includes('default')) return 'multi logoutput for "default" is not supported yet';
  if (flags.bool('enable-log-rotation')) {
    const error = checkRotation(flags, outputs);
    if (error !== null) return error;
  }
  const format = flags.string('log-format');
  if (!['json', 'console', ''].includes(format)) return `unknown log format: ${format}, supported values json, console`;
  if (outputs.includes('systemd/journal') && outputs.length > 1) {
    const list = `[${outputs.map(goQuote).join(' ')}]`;
    return `running with systemd/journal but other '--log-outputs' values (${list}) are configured with 'default'; override 'default' value with something else`;
  }
  return null;
}

function checkRotation(flags: FlagSet, outputs: readonly string[]): string | null {
  const files = outputs.filter((output) => !['default', 'stderr', 'stdout'].includes(output)).length;
  if (files > 1 || (outputs.length === 1 && files === 0))
    return '--log-outputs requires a single file path when --log-rotate-config-json is defined';
  try {
    const settings: unknown = JSON.parse(flags.string('log-rotation-config-json'));
    const isObject = typeof settings === 'object' && settings !== null && !Array.isArray(settings);
    return isObject ? null : 'invalid log rotation config: not an object';
  } catch (error) {
    return `improperly formatted log rotation config: ${(error as Error).message}`;
  }
}

function checkUrls(flags: FlagSet, advertiseUnset: boolean, notices: Notices): string | null {
  for (const name of ['listen-peer-urls', 'listen-client-urls', 'listen-client-http-urls']) {
    const error = checkBindUrls(flags.urls(name));
    if (error !== null) return error;
  }
  if (flags.urls('listen-client-http-urls').length === 0) {
    const msg = 'Running http and grpc server on single port. This is not recommended for production.';
    notices.add('warn', 'config/validate.ts:82', msg);
  }
  const metricsError = checkBindUrls(flags.urls('listen-metrics-urls'));
  if (metricsError !== null) return metricsError;
  const peerUrls = flags.urls('initial-advertise-peer-urls');
  const peerError = checkHostUrls(peerUrls);
  if (peerError !== null)
    return `--initial-advertise-peer-urls ${goQuote(urlTexts(peerUrls).join(','))} must be "host:port" (${peerError})`;
  const clientUrls = advertiseUnset ? [] : flags.urls('advertise-client-urls');
  const clientError = checkHostUrls(clientUrls);
  if (clientError === null) return null;
  const shown = goQuote(urlTexts(clientUrls).join(','));
  return `--advertise-client-urls ${shown} must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (${clientError})`;
}

function checkBootstrapFlags(flags: FlagSet): string | null {
  const state = flags.string('initial-cluster-state');
  if (state !== 'new' && state !== 'existing') return `unexpected clusterState ${goQuote(state)}`;
  const endpoints = flags.strings('discovery-endpoints');
  const ways = [flags.string('initial-cluster') !== '', flags.string('discovery-srv') !== '', endpoints.length > 0];
  if (ways.filter(Boolean).length > 1)
    return 'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"';
  if ((flags.string('discovery-token') !== '') !== endpoints.length > 0)
    return 'both --discovery-token and --discovery-endpoints must be set';
  if (endpoints.some((endpoint) => endpoint.trim() === ''))
    return '--discovery-endpoints must not contain empty endpoints';
  return null;
}

function checkTimes(flags: FlagSet): string | null {
  const heartbeat = flags.nanoseconds('heartbeat-interval');
  const election = flags.nanoseconds('election-timeout');
  if (heartbeat === 0n) return '--heartbeat-interval must be >0 (set to 0ms)';
  if (election === 0n) return '--election-timeout must be >0 (set to 0ms)';
  if (5n * heartbeat > election)
    return `--election-timeout[${election}ms] should be at least as 5 times as --heartbeat-interval[${heartbeat}ms]`;
  if (election > BigInt(electionMsMax))
    return `--election-timeout[${election}ms] is too long, and should be set less than ${electionMsMax}ms`;
  return null;
}

function checkCompactionMode(flags: FlagSet): string | null {
  const mode = flags.string('auto-compaction-mode');
  if (mode === 'periodic' || mode === 'revision') return null;
  return mode === '' ? 'undefined auto-compaction-mode' : `unknown auto-compaction-mode ${goQuote(mode)}`;
}

function checkTracing(flags: FlagSet): string | null {
  if (!flags.bool('enable-distributed-tracing')) return null;
  const rate = flags.number('distributed-tracing-sampling-rate');
  if (rate >= 0 && rate <= samplingRateMax) return null;
  const reason = rate < 0 ? 'must be positive' : `must be less than ${samplingRateMax}`;
  // The spelling is etcd's.
  return `distributed tracing configurition is not valid: (tracing sampling rate ${reason})`;
}

function checkGates(flags: FlagSet, notices: Notices): string | null {
  const gates = flags.gates('feature-gates');
  const checkpoint = gates.enabled('LeaseCheckpoint');
  const persist = gates.enabled('LeaseCheckpointPersist');
  if (checkpoint && !persist) {
    const msg =
      'Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist';
    notices.add('warn', 'config/validate.ts:145', msg);
  }
  if (persist && !checkpoint)
    return 'enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint';
  return null;
}

function checkHashCheckTime(flags: FlagSet): string | null {
  const time = flags.nanoseconds('compact-hash-check-time');
  return time > 0n ? null : `--compact-hash-check-time must be >0 (set to ${formatDuration(time)})`;
}

function checkName(flags: FlagSet, notices: Notices): null {
  const name = flags.string('name');
  if (name === 'default') {
    const msg =
      "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name";
    notices.add('warn', 'config/validate.ts:162', msg, { name });
  }
  return null;
}

const tlsVersions: ReadonlyMap<string, number> = new Map([
  ['', 0],
  ['TLS1.2', 12],
  ['TLS1.3', 13],
]);

function checkTlsVersions(flags: FlagSet): string | null {
  const minText = flags.string('tls-min-version');
  const maxText = flags.string('tls-max-version');
  const min = tlsVersions.get(minText);
  const max = tlsVersions.get(maxText);
  if (min === undefined || max === undefined) {
    const wrong = min === undefined ? minText : maxText;
    return `unexpected TLS version ${goQuote(wrong)} (must be one of: TLS1.2, TLS1.3)`;
  }
  if (max !== 0 && min > max) return `min version (${minText}) is greater than max version (${maxText})`;
  if (min === 13 && flags.strings('cipher-suites').length > 0)
    return 'cipher suites cannot be configured when only TLS1.3 is enabled';
  return null;
}

// Go's crypto/tls CipherSuites() and InsecureCipherSuites(), and two older spellings that etcd keeps.
const cipherSuites: ReadonlySet<string> = new Set([
  ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
  ...['RSA', 'ECDHE_RSA', 'ECDHE_ECDSA'].flatMap((exchange) => [
    `TLS_${exchange}_WITH_RC4_128_SHA`,
    `TLS_${exchange}_WITH_AES_128_CBC_SHA`,
    `TLS_${exchange}_WITH_AES_256_CBC_SHA`,
    `TLS_${exchange}_WITH_AES_128_CBC_SHA256`,
    `TLS_${exchange}_WITH_AES_128_GCM_SHA256`,
    `TLS_${exchange}_WITH_AES_256_GCM_SHA384`,
  ]),
  ...['TLS_RSA_WITH_3DES_EDE_CBC_SHA', 'TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA'],
  ...['TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256', 'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256'],
  ...['TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305', 'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305'],
]);

/** Checks that etcd makes only when it starts to listen. The error, or null. */
export function validateListeners(flags: FlagSet): string | null {
  const unknown = flags.strings('cipher-suites').find((suite) => !cipherSuites.has(suite));
  if (unknown !== undefined) return `unexpected TLS cipher suite ${goQuote(unknown)}`;
  const hasCertificate = flags.string('cert-file') !== '' || flags.string('key-file') !== '' || flags.bool('auto-tls');
  const clientUrls = [...flags.urls('listen-client-urls'), ...flags.urls('listen-client-http-urls')];
  const secure = clientUrls.find((url) => url.scheme === 'https' || url.scheme === 'unixs');
  if (secure !== undefined && !hasCertificate)
    return `TLS key/cert (--cert-file, --key-file) must be provided for client url ${secure.text} with HTTPS scheme`;
  const addresses = new Set(flags.urls('listen-client-urls').map((url) => url.socketPath || url.authority));
  const shared = flags.urls('listen-client-http-urls').find((url) => addresses.has(url.socketPath || url.authority));
  if (shared !== undefined)
    return `cannot bind both --listen-client-urls and --listen-client-http-urls on the same url ${shared.text}`;
  const metrics = flags.urls('listen-metrics-urls').some((url) => url.scheme === 'https' || url.scheme === 'unixs');
  if (metrics && !hasCertificate)
    return 'client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url';
  return null;
}

/** --auto-compaction-retention in its mode: the setting, or the error. */
export function parseAutoCompaction(flags: FlagSet): AutoCompaction | string {
  const mode = flags.string('auto-compaction-mode');
  const text = flags.string('auto-compaction-retention') || '0';
  // Go's Atoi takes a sign; a negative count falls through to the duration's error, as in etcd.
  const count = /^\+?\d+$/.test(text) ? Number(text) : null;
  if (count !== null) {
    if (count === 0) return { mode: 'off' };
    return mode === 'revision'
      ? { mode, retentionRevisions: count }
      : { mode: 'periodic', retentionMs: count * 3_600_000 };
  }
  const duration = parseDuration(text);
  if (!duration.ok) return `error parsing CompactionRetention: ${duration.error}`;
  if (duration.value <= 0n) return { mode: 'off' };
  // etcd takes a duration's nanoseconds as the count of revisions here; see docs/differences.md.
  if (mode === 'revision') return `error parsing CompactionRetention: ${goQuote(text)} is not a number of revisions`;
  return { mode: 'periodic', retentionMs: Number(duration.value) / 1e6 };
}

/** --auth-token: null when it is simple, or the error. JWT is in unsupported.ts. */
export function checkAuthToken(flags: FlagSet): string | null {
  const type = flags.string('auth-token').split(',')[0];
  return type === 'simple' || type === 'jwt' || type === '' ? null : 'auth: invalid auth options';
}
