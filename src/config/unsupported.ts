// Flags that parse and validate but whose effect does not exist yet. A security flag is always an error: serving plain text
// to someone who asked for TLS is worse than not starting. The rest is a warning. Rows leave this table as the parts arrive.

import type { FlagSet } from './flag-set.ts';
import type { MemberUrl } from './member-url.ts';

interface Row {
  readonly action: 'error' | 'warning';
  /** Flags that are refused or warned about when they are not at their default. */
  readonly flags: readonly string[];
  readonly reason: string;
}

const rows: readonly Row[] = [
  {
    action: 'error',
    flags: [
      ...['cert-file', 'key-file', 'client-cert-auth', 'client-cert-file', 'client-key-file', 'client-crl-file'],
      ...['client-cert-allowed-hostname', 'trusted-ca-file', 'auto-tls', 'peer-cert-file', 'peer-key-file'],
      ...['peer-client-cert-auth', 'peer-client-cert-file', 'peer-client-key-file', 'peer-trusted-ca-file'],
      ...['peer-cert-allowed-cn', 'peer-cert-allowed-hostname', 'peer-auto-tls', 'peer-crl-file'],
      ...['peer-skip-client-san-verification', 'cipher-suites'],
    ],
    reason: 'TLS is not supported yet',
  },
  { action: 'warning', flags: ['enable-pprof'], reason: 'profiles are not served yet' },
  { action: 'warning', flags: ['enable-distributed-tracing'], reason: 'traces are not sent yet' },
  { action: 'warning', flags: ['memory-mlock'], reason: 'memory is not locked' },
  { action: 'warning', flags: ['enable-log-rotation'], reason: 'log files are not rotated yet and grow' },
  { action: 'warning', flags: ['backend-bbolt-freelist-type'], reason: 'the backend is not bbolt' },
  {
    action: 'warning',
    flags: ['bootstrap-defrag-threshold-megabytes'],
    reason: 'there is no defragmentation at start yet',
  },
  { action: 'warning', flags: ['tls-max-version'], reason: 'TLS is not supported yet' },
];

const gateReasons: ReadonlyMap<string, string> = new Map([
  ['StopGRPCServiceOnDefrag', 'defragmentation does not stop the service'],
]);

export interface UnsupportedUse {
  readonly action: 'error' | 'warning';
  readonly flag: string;
  readonly reason: string;
}

/** Every use of something that does not exist yet, errors first. */
export function unsupportedUses(flags: FlagSet): UnsupportedUse[] {
  const uses: UnsupportedUse[] = [];
  for (const row of rows) {
    for (const flag of row.flags)
      if (differsFromDefault(flags, flag)) uses.push({ action: row.action, flag: `--${flag}`, reason: row.reason });
  }
  for (const name of ['listen-client-urls', 'listen-client-http-urls', 'listen-metrics-urls', 'listen-peer-urls']) {
    if (flags.urls(name).some(isSecure))
      uses.push({ action: 'error', flag: `--${name}`, reason: 'TLS is not supported yet' });
  }
  if (flags.string('auth-token').split(',')[0] === 'jwt')
    uses.push({ action: 'error', flag: '--auth-token', reason: 'JWT tokens are not supported yet' });
  if (flags.strings('log-outputs').includes('systemd/journal'))
    uses.push({ action: 'error', flag: '--log-outputs', reason: 'writing to journald is not supported yet' });
  const gates = flags.gates('feature-gates');
  for (const [gate, reason] of gateReasons)
    if (gates.enabled(gate)) uses.push({ action: 'warning', flag: `--feature-gates=${gate}`, reason });
  return [...uses.filter((use) => use.action === 'error'), ...uses.filter((use) => use.action === 'warning')];
}

function isSecure(url: MemberUrl): boolean {
  return url.scheme === 'https' || url.scheme === 'unixs';
}

function differsFromDefault(flags: FlagSet, name: string): boolean {
  return flags.given.has(name) && !flags.isDefault(name);
}
