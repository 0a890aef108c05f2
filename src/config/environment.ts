// Flags from the environment: KEELSON_<FLAG> before ETCD_<FLAG>, both only where the command line is silent. As etcd
// (pkg/flags SetFlagsFromEnv): an ETCD_ variable beside the same flag on the command line is refused, unknown ETCD_ variables
// are warned about. KEELSON_ variables are ours: the command line simply wins over them.

import type { FlagSet } from './flag-set.ts';
import { flags } from './flags.ts';
import { goQuote } from './go-value.ts';
import type { Notices } from './notice.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

const prefixes = ['KEELSON_', 'ETCD_'] as const;

function variableSuffix(flagName: string): string {
  return flagName.toUpperCase().replaceAll('-', '_');
}

/** A flag's variable, or ''. For --config-file, which is looked up before everything else. */
export function fromEnvironment(env: Environment, flagName: string): string {
  const suffix = variableSuffix(flagName);
  return env[`KEELSON_${suffix}`] || env[`ETCD_${suffix}`] || '';
}

/** How the environment was read: an error value as for other bad flags, or a conflict that etcd dies of at once. */
export type EnvironmentResult =
  | { readonly kind: 'applied' }
  | { readonly kind: 'error'; readonly error: string }
  | { readonly kind: 'conflict' };

export function applyEnvironment(env: Environment, into: FlagSet, notices: Notices): EnvironmentResult {
  const onCommandLine = new Set(into.given);
  const known = new Set<string>();
  for (const prefix of prefixes) dropVersion(env, `${prefix}VERSION`, known, notices);
  let failure: string | null = null;
  for (const flag of [...flags].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (onCommandLine.has(flag.name)) continue;
    const suffix = variableSuffix(flag.name);
    const variable = prefixes
      .map((prefix) => prefix + suffix)
      .find((name) => (env[name] ?? '') !== '' && !known.has(name));
    if (variable === undefined) continue;
    for (const prefix of prefixes) if ((env[prefix + suffix] ?? '') !== '') known.add(prefix + suffix);
    const text = env[variable]!;
    const error = into.set(flag.name, text);
    if (error !== null) {
      failure = `invalid value ${goQuote(text)} for ${variable}: ${error}`;
      continue;
    }
    const fields = { 'variable-name': variable, 'variable-value': text };
    notices.add('info', 'config/environment.ts:50', 'recognized and used environment variable', fields);
  }
  if (!checkUnused(env, known, onCommandLine, notices)) return { kind: 'conflict' };
  return failure === null ? { kind: 'applied' } : { kind: 'error', error: failure };
}

/** --version is for people; as a variable it is refused, because images and charts set <NAME>_VERSION for themselves. */
function dropVersion(env: Environment, name: string, known: Set<string>, notices: Notices): void {
  const value = env[name] ?? '';
  if (value === '') return;
  known.add(name);
  const fields = { key: name, value };
  notices.add('warn', 'config/environment.ts:62', 'cannot set special environment variable', fields);
}

function checkUnused(env: Environment, known: Set<string>, onCommandLine: Set<string>, notices: Notices): boolean {
  const shadowed = new Set([...onCommandLine].map((name) => `ETCD_${variableSuffix(name)}`));
  const overridden = new Set([...onCommandLine].map((name) => `KEELSON_${variableSuffix(name)}`));
  for (const [name, value] of Object.entries(env)) {
    if (known.has(name) || overridden.has(name)) continue;
    if (shadowed.has(name)) {
      const msg =
        'conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))';
      notices.add('fatal', 'config/environment.ts:73', msg, { 'environment-variable': name });
      return false;
    }
    if (prefixes.some((prefix) => name.startsWith(prefix))) {
      const fields = { 'environment-variable': `${name}=${value}` };
      notices.add('warn', 'config/environment.ts:78', 'unrecognized environment variable', fields);
    }
  }
  return true;
}
