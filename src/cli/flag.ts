// Flags with the types, values and errors of Go's pflag, which etcd's tools read their command lines with. A bool takes a value
// only after "=", numbers may be 0x10, a list is comma-separated and may be given again.

import {
  type Parsed,
  parseBoolean,
  parseDuration,
  parseInteger,
  parseUnsigned,
  rangeError,
} from '../config/go-value.ts';
import { textOf } from './byte-text.ts';

export type FlagType = 'bool' | 'string' | 'int' | 'uint' | 'duration' | 'strings';
export type FlagValue = boolean | string | number | readonly string[];

export interface FlagDetails {
  readonly short?: string;
  readonly byDefault?: FlagValue;
  /** In the usage: what is not zero. */
  readonly shownDefault?: string;
}

const zeroes: Readonly<Record<FlagType, FlagValue>> = {
  bool: false,
  string: '',
  int: 0,
  uint: 0,
  duration: 0,
  strings: [],
};

/** Holds its value: a tree of commands is made for one command line. */
export class Flag {
  readonly type: FlagType;
  readonly name: string;
  /** One letter. */
  readonly short: string | undefined;
  readonly description: string;
  readonly shownDefault: string | undefined;
  /** Its name in the values of a command: "dial-timeout" is dialTimeout. */
  readonly property: string;
  #value: FlagValue;
  #source: 'default' | 'command line' | 'environment' = 'default';

  constructor(type: FlagType, name: string, description: string, details: FlagDetails = {}) {
    this.type = type;
    this.name = name;
    this.short = details.short;
    this.description = description;
    this.shownDefault = details.shownDefault;
    this.property = name.replace(/-(.)/g, (_dash, letter: string) => letter.toUpperCase());
    this.#value = details.byDefault ?? zeroes[type];
  }

  get value(): FlagValue {
    return this.#value;
  }

  get source(): 'default' | 'command line' | 'environment' {
    return this.#source;
  }

  /** As pflag names it in its errors. */
  get display(): string {
    return this.short === undefined ? `--${this.name}` : `-${this.short}, --${this.name}`;
  }

  /** Takes a byte string; the error when it is none of the flag's values. A list that is given again grows. */
  give(byteText: string, source: 'command line' | 'environment'): string | null {
    const parsed = parseFlag(this.type, byteText);
    if (!parsed.ok) return parsed.error;
    const isMore = this.type === 'strings' && this.#source === source;
    this.#value = isMore ? (this.#value as readonly string[]).concat(parsed.value as readonly string[]) : parsed.value;
    this.#source = source;
    return null;
  }
}

/**
 * A flag's value from a byte string, or pflag's error. Durations are milliseconds. Numbers beyond 2^53 become that bound: there
 * are no such revisions, limits or sizes, and none of them is printed again.
 */
export function parseFlag(type: FlagType, byteText: string): Parsed<FlagValue> {
  switch (type) {
    case 'string':
      return { ok: true, value: byteText };
    case 'bool': {
      const parsed = parseBoolean(byteText);
      return parsed.ok ? parsed : conversionError('ParseBool', byteText, 'invalid syntax');
    }
    case 'int': {
      const parsed = parseInteger(byteText, 64);
      return parsed.ok
        ? { ok: true, value: safeNumber(parsed.value) }
        : numberError('ParseInt', byteText, parsed.error);
    }
    case 'uint': {
      const parsed = parseUnsigned(byteText, 64);
      return parsed.ok
        ? { ok: true, value: safeNumber(parsed.value) }
        : numberError('ParseUint', byteText, parsed.error);
    }
    case 'duration': {
      const parsed = parseDuration(textOf(byteText));
      return parsed.ok ? { ok: true, value: Number(parsed.value) / 1e6 } : parsed;
    }
    case 'strings':
      return parseList(byteText);
  }
}

function numberError(name: string, text: string, error: string): Parsed<never> {
  return conversionError(name, text, error === rangeError ? 'value out of range' : 'invalid syntax');
}

/** strconv.NumError as Go prints it. */
export function conversionError(name: string, byteText: string, reason: string): { ok: false; error: string } {
  return { ok: false, error: `strconv.${name}: parsing ${JSON.stringify(textOf(byteText))}: ${reason}` };
}

export function safeNumber(value: bigint): number {
  const bound = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > bound ? bound : value < -bound ? -bound : value);
}

/** One CSV record, as pflag's StringSlice. */
function parseList(byteText: string): Parsed<readonly string[]> {
  if (byteText === '') return { ok: true, value: [] };
  const items: string[] = [];
  const item = /(?:"((?:[^"]|"")*)"|([^",\n]*))(,|$)/gy;
  for (;;) {
    const match = item.exec(byteText);
    if (match === null) return { ok: false, error: 'parse error on line 1: bare " in non-quoted-field' };
    items.push(match[1]?.replaceAll('""', '"') ?? match[2]!);
    if (match[3] === '') return { ok: true, value: items };
  }
}

/** strconv.ParseInt(text, base, 64): a whole number of a word of the command line, with Go's error. */
export function parseInt64(byteText: string, base: 10 | 16): Parsed<bigint> {
  return parseDigits('ParseInt', /^([+-]?)([0-9a-fA-F]+)$/, byteText, base, -(1n << 63n), (1n << 63n) - 1n);
}

/** strconv.ParseUint(text, base, 64). */
export function parseUint64(byteText: string, base: 10 | 16): Parsed<bigint> {
  return parseDigits('ParseUint', /^()([0-9a-fA-F]+)$/, byteText, base, 0n, (1n << 64n) - 1n);
}

function parseDigits(
  name: string,
  pattern: RegExp,
  text: string,
  base: 10 | 16,
  least: bigint,
  most: bigint,
): Parsed<bigint> {
  const match = pattern.exec(text);
  if (match === null || (base === 10 && /[a-fA-F]/.test(text))) return conversionError(name, text, 'invalid syntax');
  const size = BigInt(base === 16 ? `0x${match[2]}` : match[2]!);
  const value = match[1] === '-' ? -size : size;
  return value < least || value > most ? conversionError(name, text, 'value out of range') : { ok: true, value };
}
