// Values of the flags of one start: parsing of the command line by the rules of Go's flag package, and typed access. Why not
// an argument parser from npm: Go's syntax is its own (-f and --f are one, --f=v and --f v both work, a bool takes its value
// only after =, the first word without a dash ends the flags, numbers may be 0x10 or 1_000) and so are its error texts, which
// scripts match; the whole of it is the function parseArguments below.

import { assert } from '../base/assert.ts';
import { FeatureGateSet } from './feature-gates.ts';
import { type Flag, flags, flagsByName } from './flags.ts';
import { goQuote, parseBoolean, parseDuration, parseError, parseInteger, parseUnsigned } from './go-value.ts';
import { type MemberUrl, parseUniqueMemberUrls } from './member-url.ts';

export type FlagValue = string | boolean | bigint | readonly string[] | readonly MemberUrl[] | FeatureGateSet;

export class FlagSet {
  readonly #values: Map<string, FlagValue> = new Map();
  /** Names that were given anywhere, even with the default's value. */
  readonly given: Set<string> = new Set();

  constructor() {
    for (const flag of flags) {
      this.#values.set(flag.name, emptyValue(flag));
      if (flag.byDefault === '' && flag.type !== 'gates') continue;
      const error = this.#read(flag, flag.byDefault);
      assert(error === null, 'a default that its own parser refuses');
    }
  }

  /** Reads a flag's text. The error as Go's flag package words it, or null. */
  set(name: string, text: string): string | null {
    const flag = flagsByName.get(name);
    assert(flag !== undefined, 'set of an unknown flag');
    const error = this.#read(flag, text);
    if (error === null) this.given.add(name);
    return error;
  }

  /** Puts a value that another parser made, such as a configuration file's. */
  assign(name: string, value: FlagValue): void {
    this.#values.set(name, value);
    this.given.add(name);
  }

  #read(flag: Flag, text: string): string | null {
    switch (flag.type) {
      case 'ignored':
        return null;
      case 'string':
        return this.#put(flag, text);
      case 'bool':
        return this.#putParsed(flag, parseBoolean(text));
      case 'int':
        return this.#putParsed(flag, parseInteger(text, 64));
      case 'uint':
        return this.#putParsed(flag, parseUnsigned(text, 64));
      case 'uint32':
        return this.#readUint32(flag, text);
      case 'duration': {
        const parsed = parseDuration(text);
        return parsed.ok ? this.#put(flag, parsed.value) : parseError;
      }
      case 'urls':
        // etcd's empty list is "not given" here: the default stays.
        return text === '' ? null : this.#putParsed(flag, parseUniqueMemberUrls(text));
      case 'origins': {
        if (text === '*') return this.#put(flag, ['*']);
        const parsed = parseUniqueMemberUrls(text);
        return parsed.ok
          ? this.#put(
              flag,
              parsed.value.map((url) => url.text),
            )
          : parsed.error;
      }
      case 'strings':
        return this.#put(flag, text.split(','));
      case 'set':
        return this.#put(flag, [...new Set(text.split(','))].sort());
      case 'choice':
        return flag.choices?.includes(text) ? this.#put(flag, text) : 'invalid value';
      case 'choices': {
        const wrong = text.split(',').find((word) => !flag.choices?.includes(word));
        return wrong === undefined ? this.#put(flag, text.split(',')) : `invalid value ${goQuote(wrong)}`;
      }
      case 'gates':
        return this.gates(flag.name).apply(text);
    }
  }

  /** etcd's own uint32 type passes the text of strconv's error on, where Go's flag types shorten it. */
  #readUint32(flag: Flag, text: string): string | null {
    const parsed = parseUnsigned(text, 32);
    if (parsed.ok) return this.#put(flag, parsed.value);
    const reason = parsed.error === parseError ? 'invalid syntax' : parsed.error;
    return `strconv.ParseUint: parsing ${goQuote(text)}: ${reason}`;
  }

  #put(flag: Flag, value: FlagValue): null {
    this.#values.set(flag.name, value);
    return null;
  }

  #putParsed(flag: Flag, parsed: { ok: true; value: FlagValue } | { ok: false; error: string }): string | null {
    return parsed.ok ? this.#put(flag, parsed.value) : parsed.error;
  }

  /** Whether the value equals the default's, given or not. Lists and gates: whether they are empty. */
  isDefault(name: string): boolean {
    const value = this.#values.get(name)!;
    const flag = flagsByName.get(name)!;
    if (value instanceof FeatureGateSet) return value.format() === '';
    if (Array.isArray(value)) return value.length === 0 || (value.length === 1 && value[0] === flag.byDefault);
    return value === new FlagSet().#values.get(name);
  }

  string(name: string): string {
    const value = this.#values.get(name);
    assert(typeof value === 'string', 'flag is not a string');
    return value;
  }

  bool(name: string): boolean {
    const value = this.#values.get(name);
    assert(typeof value === 'boolean', 'flag is not a bool');
    return value;
  }

  /** Integer flags as a number. Beyond 2^53 it is rounded: as a count or size that is out of reach either way. */
  number(name: string): number {
    return Number(this.nanoseconds(name));
  }

  /** Durations exactly; also the raw value of integer flags. */
  nanoseconds(name: string): bigint {
    const value = this.#values.get(name);
    assert(typeof value === 'bigint', 'flag is not a number');
    return value;
  }

  milliseconds(name: string): number {
    return Number(this.nanoseconds(name)) / 1e6;
  }

  strings(name: string): readonly string[] {
    const value = this.#values.get(name);
    assert(Array.isArray(value), 'flag is not a list');
    return value as readonly string[];
  }

  urls(name: string): readonly MemberUrl[] {
    assert(flagsByName.get(name)?.type === 'urls', 'flag is not a list of URLs');
    return this.#values.get(name) as readonly MemberUrl[];
  }

  gates(name: string): FeatureGateSet {
    const value = this.#values.get(name);
    assert(value instanceof FeatureGateSet, 'flag is not a set of gates');
    return value;
  }
}

function emptyValue(flag: Flag): FlagValue {
  switch (flag.type) {
    case 'bool':
      return false;
    case 'int':
    case 'uint':
    case 'uint32':
    case 'duration':
      return 0n;
    case 'urls':
    case 'origins':
    case 'strings':
    case 'set':
    case 'choices':
      return [];
    case 'gates':
      return new FeatureGateSet();
    default:
      return '';
  }
}

/** What the command line was: parsed, a request for help, or an error (printed with the usage; exit 2). */
export type ArgumentsResult =
  | { readonly kind: 'parsed'; readonly rest: readonly string[] }
  | { readonly kind: 'help' }
  | { readonly kind: 'error'; readonly error: string };

/** Go's flag.FlagSet.Parse. `args` are those after the program's name; values are set in `into`. */
export function parseArguments(args: readonly string[], into: FlagSet): ArgumentsResult {
  let next = 0;
  const fail = (error: string): ArgumentsResult => ({ kind: 'error', error });
  while (next < args.length) {
    const argument = args[next]!;
    if (argument.length < 2 || argument[0] !== '-') break;
    next++;
    if (argument === '--') break;
    const body = argument.slice(argument[1] === '-' ? 2 : 1);
    if (body === '' || body[0] === '-' || body[0] === '=') return fail(`bad flag syntax: ${argument}`);
    const equals = body.indexOf('=', 1);
    const name = equals < 0 ? body : body.slice(0, equals);
    const flag = flagsByName.get(name);
    if (flag === undefined)
      return name === 'help' || name === 'h' ? { kind: 'help' } : fail(`flag provided but not defined: -${name}`);
    if (flag.type === 'bool' || flag.type === 'ignored') {
      const text = equals < 0 ? 'true' : body.slice(equals + 1);
      const error = into.set(name, text);
      if (error !== null) return fail(`invalid boolean value ${goQuote(text)} for -${name}: ${error}`);
      continue;
    }
    if (equals < 0 && next >= args.length) return fail(`flag needs an argument: -${name}`);
    const text = equals < 0 ? args[next++]! : body.slice(equals + 1);
    const error = into.set(name, text);
    if (error !== null) return fail(`invalid value ${goQuote(text)} for flag -${name}: ${error}`);
  }
  return { kind: 'parsed', rest: args.slice(next) };
}
