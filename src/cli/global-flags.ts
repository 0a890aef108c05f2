// The flags that every command of keelsonctl takes, etcdctl's with their defaults, and their environment variables:
// ETCDCTL_<FLAG> and KEELSONCTL_<FLAG>, which goes before. A flag that is given beside its variable is a conflict and ends the
// program, as in etcdctl: else one of two answers would be silently wrong.

import { byteString } from './byte-text.ts';
import { ExitCode, ExitError } from './exit.ts';
import { Flag } from './flag.ts';

export interface GlobalFlags {
  readonly endpoints: readonly string[];
  readonly debug: boolean;
  readonly writeOut: string;
  readonly hex: boolean;
  /** Milliseconds. */
  readonly dialTimeout: number;
  readonly commandTimeout: number;
  readonly keepaliveTime: number;
  readonly keepaliveTimeout: number;
  readonly maxRequestBytes: number;
  readonly maxRecvBytes: number;
  readonly insecureTransport: boolean;
  readonly insecureDiscovery: boolean;
  readonly insecureSkipTlsVerify: boolean;
  readonly cert: string;
  readonly key: string;
  readonly cacert: string;
  readonly authJwtToken: string;
  readonly user: string;
  readonly password: string;
  readonly discoverySrv: string;
  readonly discoverySrvName: string;
}

/** New ones for each program: they hold its values. */
export function globalFlags(): Flag[] {
  const duration = (name: string, description: string, ms: number): Flag =>
    new Flag('duration', name, description, { byDefault: ms, shownDefault: `${ms / 1000}s` });
  return [
    new Flag('strings', 'endpoints', 'addresses of members: host:port, http://…, https://…, unix://…', {
      byDefault: ['127.0.0.1:2379'],
      shownDefault: '[127.0.0.1:2379]',
    }),
    new Flag('bool', 'debug', 'log more on stderr'),
    new Flag('string', 'write-out', 'output format: fields, json, protobuf, simple or table', {
      short: 'w',
      byDefault: 'simple',
      shownDefault: '"simple"',
    }),
    new Flag('bool', 'hex', 'print bytes and ids in hexadecimal'),
    duration('dial-timeout', 'how long to wait for the first answer of a member', 2000),
    duration('command-timeout', 'how long a command may take', 5000),
    duration('keepalive-time', 'how often to ping an idle connection', 2000),
    duration('keepalive-timeout', 'how long to wait for the answer to a ping', 6000),
    new Flag('int', 'max-request-bytes', 'largest request in bytes (0 for 2 MiB)'),
    new Flag('int', 'max-recv-bytes', 'largest response in bytes (0 for the largest that there is, 2^31-1)'),
    new Flag('bool', 'insecure-transport', 'no TLS where the endpoint does not ask for it', {
      byDefault: true,
      shownDefault: 'true',
    }),
    new Flag('bool', 'insecure-discovery', 'accept SRV records of members without TLS', {
      byDefault: true,
      shownDefault: 'true',
    }),
    new Flag('bool', 'insecure-skip-tls-verify', "do not verify the server's certificate (for tests only)"),
    new Flag('string', 'cert', 'client certificate, a PEM file'),
    new Flag('string', 'key', 'its key, a PEM file'),
    new Flag('string', 'cacert', 'certificate authorities that the server is verified by, a PEM file'),
    new Flag('string', 'auth-jwt-token', 'a JWT to authenticate with, instead of --user'),
    new Flag('string', 'user', 'name:password to authenticate with'),
    new Flag('string', 'password', 'the password; --user is then the name alone'),
    new Flag('string', 'discovery-srv', 'domain whose SRV records name the members', {
      short: 'd',
    }),
    new Flag('string', 'discovery-srv-name', 'service name in these records'),
  ];
}

const prefixes = ['KEELSONCTL_', 'ETCDCTL_'] as const;
/** Read where they are used. */
const otherVariables: ReadonlySet<string> = new Set(['WATCH_KEY', 'WATCH_RANGE_END']);

export type Environment = Readonly<Record<string, string | undefined>>;
export type LogLine = (level: 'warn' | 'fatal', message: string, fields: Readonly<Record<string, unknown>>) => void;

/** Puts the environment's values where the command line gave none. `flags`: those that variables set. */
export function applyEnvironment(
  flags: readonly Flag[],
  environment: Environment,
  isWatch: boolean,
  log: LogLine,
): void {
  const known = new Map(flags.map((flag) => [flag.name.toUpperCase().replaceAll('-', '_'), flag]));
  for (const [variable, value] of Object.entries(environment)) {
    const prefix = prefixes.find((each) => variable.startsWith(each));
    if (prefix === undefined) continue;
    const name = variable.slice(prefix.length);
    const flag = known.get(name);
    if (flag?.source === 'command line') {
      const message =
        'conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))';
      log('fatal', message, { 'environment-variable': variable });
      throw new ExitError(ExitCode.error, null);
    }
    if (flag === undefined || value === undefined || value === '') {
      const isRead = isWatch && otherVariables.has(name);
      if (!isRead) log('warn', 'unrecognized environment variable', { 'environment-variable': `${variable}=${value}` });
      continue;
    }
    if (prefix === 'ETCDCTL_' && (environment[`KEELSONCTL_${name}`] ?? '') !== '') continue;
    // A value that does not parse is passed over, as in etcdctl.
    flag.give(byteString(value), 'environment');
  }
}
