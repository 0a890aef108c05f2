// --config-file: YAML or JSON with etcd's keys (server/embed configYAML): flag names at the top, TLS, discovery and socket
// options in objects of their own, durations as whole nanoseconds, unknown keys ignored, keys in any case, errors worded as by
// Go's decoder. YAML itself is parsed by the `yaml` package, loaded only when there is a file.

import type { FlagSet } from './flag-set.ts';
import { type Flag, flags } from './flags.ts';
import { parseUniqueMemberUrls } from './member-url.ts';

/** A failure of the file: where etcd logs it, or prints it to stderr and ends. */
export interface ConfigFileError {
  readonly kind: 'logged' | 'printed';
  readonly error: string;
}

type Json = null | boolean | number | bigint | string | Json[] | { [key: string]: Json };

/** Reads `text` into the flags. The error, or null. */
export async function applyConfigFile(text: string, into: FlagSet): Promise<ConfigFileError | null> {
  const { parse } = await import('yaml');
  let root: Json;
  try {
    // 1.1 for yes/no/on/off and octal numbers, as etcd's library reads them.
    root = parse(text, { version: '1.1', intAsBigInt: true, uniqueKeys: true, maxAliasCount: 100 }) as Json;
  } catch (error) {
    return logged(`error converting YAML to JSON: yaml: ${(error as Error).message.split('\n')[0]}`);
  }
  if (root === null || root === undefined) return null;
  if (typeof root !== 'object' || Array.isArray(root))
    return logged(wrongType(goKind(root), 'value', 'embed.configYAML'));
  for (const flag of flags) {
    if (flag.fileKey === null) continue;
    const error = applyKey(flag, root, into);
    if (error !== null) return error;
  }
  if (into.number('self-signed-cert-validity') === 0) into.assign('self-signed-cert-validity', 1n);
  if (into.string('initial-cluster-state') === '') into.assign('initial-cluster-state', 'new');
  return null;
}

function applyKey(flag: Flag, root: { [key: string]: Json }, into: FlagSet): ConfigFileError | null {
  const path = (flag.fileKey ?? flag.name).split('.');
  let value: Json | undefined = root;
  for (const [depth, key] of path.entries()) {
    if (value === undefined || value === null) return null;
    if (typeof value !== 'object' || Array.isArray(value))
      return logged(wrongType(goKind(value), path.slice(0, depth).join('.'), 'embed.securityConfig'));
    value = lookUp(value, key);
  }
  if (value === undefined || value === null) return null;
  return applyValue(flag, value, path.join('.'), into);
}

/** Go's decoder prefers the exact key and else takes one that differs in case. */
function lookUp(object: { [key: string]: Json }, key: string): Json | undefined {
  if (Object.hasOwn(object, key)) return object[key];
  const other = Object.keys(object).find((name) => name.toLowerCase() === key);
  return other === undefined ? undefined : object[other];
}

const integerTypes: ReadonlyMap<string, { readonly go: string; readonly min: bigint; readonly max: bigint }> = new Map([
  ['int', { go: 'int', min: -(1n << 63n), max: (1n << 63n) - 1n }],
  ['uint', { go: 'uint', min: 0n, max: (1n << 64n) - 1n }],
  ['uint32', { go: 'uint32', min: 0n, max: (1n << 32n) - 1n }],
  ['duration', { go: 'time.Duration', min: -(1n << 63n), max: (1n << 63n) - 1n }],
]);
/** Lists that a file gives as one comma-separated string, where other lists are arrays. */
const textLists: ReadonlySet<string> = new Set(['cors', 'host-whitelist']);

function applyValue(flag: Flag, value: Json, path: string, into: FlagSet): ConfigFileError | null {
  const fail = (go: string): ConfigFileError => logged(wrongType(goKind(value), path, go));
  const integer = integerTypes.get(flag.type);
  if (integer !== undefined) {
    if (typeof value === 'number') return logged(wrongType(`number ${value}`, path, integer.go));
    if (typeof value !== 'bigint') return fail(integer.go);
    if (value < integer.min || value > integer.max) return logged(wrongType(`number ${value}`, path, integer.go));
    into.assign(flag.name, value);
    return null;
  }
  if (flag.type === 'bool') {
    if (typeof value !== 'boolean') return fail('bool');
    into.assign(flag.name, value);
    return null;
  }
  if ((flag.type === 'strings' || flag.type === 'set') && !textLists.has(flag.name)) {
    if (!Array.isArray(value)) return fail('[]string');
    into.assign(
      flag.name,
      value.map((item) => (typeof item === 'string' ? item : String(item))),
    );
    return null;
  }
  // The YAML library of etcd turns numbers and booleans into text where text is wanted.
  if (typeof value === 'object') return fail('string');
  return applyText(flag, String(value), into);
}

function applyText(flag: Flag, text: string, into: FlagSet): ConfigFileError | null {
  if (flag.type === 'string' || flag.type === 'choice' || flag.type === 'choices') {
    into.assign(flag.name, flag.type === 'choices' ? [text] : text);
    return null;
  }
  if (text === '') return null;
  if (flag.type === 'urls') {
    const parsed = parseUniqueMemberUrls(text);
    if (!parsed.ok) return { kind: 'printed', error: `unexpected error setting up ${flag.name}: ${parsed.error}` };
    into.assign(flag.name, parsed.value);
    return null;
  }
  const error = into.set(flag.name, text);
  if (error === null) return null;
  return flag.type === 'gates'
    ? logged(error)
    : { kind: 'printed', error: `unexpected error setting up ${flag.name}: ${error}` };
}

function logged(error: string): ConfigFileError {
  return { kind: 'logged', error };
}

function wrongType(kind: string, path: string, go: string): string {
  return `error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ${kind} into Go struct field configYAML.Config.${path} of type ${go}`;
}

/** What Go's decoder calls a JSON value; where an integer is wanted it adds the number. */
function goKind(value: Json): string {
  if (typeof value === 'string') return 'string';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number' || typeof value === 'bigint') return 'number';
  return Array.isArray(value) ? 'array' : 'object';
}
