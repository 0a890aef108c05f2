// Texts of Go's flag, strconv and time packages: what they accept and the errors that they give, because operators' scripts
// match them. Parsers return errors as values. Not a general Go library: only what etcd's flags use.

/** A parsed value, or the text of the error that Go's parser gives. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: string };

function good<T>(value: T): Parsed<T> {
  return { ok: true, value };
}
function bad(error: string): { readonly ok: false; readonly error: string } {
  return { ok: false, error };
}

/** strconv.ErrSyntax and strconv.ErrRange as the flag package prints them. */
export const parseError: string = 'parse error';
export const rangeError: string = 'value out of range';

// Base 0 of strconv.ParseInt: decimal, 0x, 0b, 0o, a leading 0 for octal, and underscores between digits.
const integerPattern: RegExp =
  /^(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)$/;

function magnitude(text: string): bigint | null {
  if (!integerPattern.test(text)) return null;
  const digits = text.replaceAll('_', '');
  return /^0[0-7]+$/.test(digits) ? BigInt(`0o${digits.slice(1)}`) : BigInt(digits);
}

/** strconv.ParseInt(text, 0, bits) with the flag package's errors. */
export function parseInteger(text: string, bits: 32 | 64): Parsed<bigint> {
  const sign = text[0] === '-' || text[0] === '+' ? text[0] : '';
  const size = magnitude(text.slice(sign.length));
  if (size === null) return bad(parseError);
  const value = sign === '-' ? -size : size;
  const bound = 1n << BigInt(bits - 1);
  return value < -bound || value >= bound ? bad(rangeError) : good(value);
}

/** strconv.ParseUint(text, 0, bits) with the flag package's errors. */
export function parseUnsigned(text: string, bits: 32 | 64): Parsed<bigint> {
  const value = magnitude(text);
  if (value === null) return bad(parseError);
  return value >= 1n << BigInt(bits) ? bad(rangeError) : good(value);
}

const trueTexts: ReadonlySet<string> = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const falseTexts: ReadonlySet<string> = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

/** strconv.ParseBool with the flag package's error. */
export function parseBoolean(text: string): Parsed<boolean> {
  if (trueTexts.has(text)) return good(true);
  return falseTexts.has(text) ? good(false) : bad(parseError);
}

const unitNs: ReadonlyMap<string, bigint> = new Map([
  ['ns', 1n],
  ['us', 1000n],
  ['µs', 1000n],
  ['μs', 1000n],
  ['ms', 1_000_000n],
  ['s', 1_000_000_000n],
  ['m', 60_000_000_000n],
  ['h', 3_600_000_000_000n],
]);

/** time.ParseDuration: nanoseconds, with its errors. */
export function parseDuration(text: string): Parsed<bigint> {
  const negative = text[0] === '-';
  let rest = negative || text[0] === '+' ? text.slice(1) : text;
  if (rest === '0') return good(0n);
  if (rest === '') return bad(`time: invalid duration ${goQuote(text)}`);
  let sum = 0n;
  while (rest !== '') {
    const number = /^(\d*)(?:\.(\d*))?/.exec(rest)!;
    const whole = number[1]!;
    const fraction = number[2] ?? '';
    if (whole === '' && fraction === '') return bad(`time: invalid duration ${goQuote(text)}`);
    rest = rest.slice(number[0].length);
    const unit = /^[^.\d]*/.exec(rest)![0];
    if (unit === '') return bad(`time: missing unit in duration ${goQuote(text)}`);
    const scale = unitNs.get(unit);
    if (scale === undefined) return bad(`time: unknown unit ${goQuote(unit)} in duration ${goQuote(text)}`);
    rest = rest.slice(unit.length);
    sum += BigInt(whole === '' ? '0' : whole) * scale;
    if (fraction !== '') sum += (BigInt(fraction) * scale) / 10n ** BigInt(fraction.length);
  }
  if (sum > 1n << 63n || (sum === 1n << 63n && !negative)) return bad(`time: invalid duration ${goQuote(text)}`);
  return good(negative ? -sum : sum);
}

/** Milliseconds as Go prints a duration: 1.5ms, 20.103457ms, 1m3s. */
export function durationText(ms: number): string {
  return formatDuration(BigInt(Math.round(ms * 1e6)));
}

/** time.Duration.String: "1h2m3.5s", "100ms", "1.5µs", "0s". */
export function formatDuration(ns: bigint): string {
  if (ns === 0n) return '0s';
  const sign = ns < 0n ? '-' : '';
  const size = ns < 0n ? -ns : ns;
  if (size < 1000n) return `${sign}${size}ns`;
  if (size < 1_000_000n) return `${sign}${decimal(size, 3)}µs`;
  if (size < 1_000_000_000n) return `${sign}${decimal(size, 6)}ms`;
  const seconds = decimal(size % 60_000_000_000n, 9);
  const minutes = size / 60_000_000_000n;
  if (minutes === 0n) return `${sign}${seconds}s`;
  const hours = minutes / 60n;
  return `${sign}${hours === 0n ? '' : `${hours}h`}${minutes % 60n}m${seconds}s`;
}

/** value / 10^places without trailing zeros. */
function decimal(value: bigint, places: number): string {
  const digits = value.toString().padStart(places + 1, '0');
  const fraction = digits.slice(-places).replace(/0+$/, '');
  return digits.slice(0, -places) + (fraction === '' ? '' : `.${fraction}`);
}

const quoteEscapes: Readonly<Record<string, string>> = {
  '\u0007': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '"': '\\"',
  '\\': '\\\\',
};

/** strconv.Quote, Go's %q. */
export function goQuote(text: string): string {
  let out = '"';
  for (const char of text) {
    const escaped = quoteEscapes[char];
    const code = char.codePointAt(0)!;
    if (escaped !== undefined) out += escaped;
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, '0')}`;
    else if (/[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u.test(char)) out += char;
    else if (code < 0x10000) out += `\\u${code.toString(16).padStart(4, '0')}`;
    else out += `\\U${code.toString(16).padStart(8, '0')}`;
  }
  return `${out}"`;
}

/** humanize.Bytes of etcd's logs: 2147483648 → "2.1 GB", powers of 1000, one digit after the point below ten. */
export function humanBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  const power = Math.min(Math.floor(Math.log(bytes) / Math.log(1000)), units.length - 1);
  const value = Math.floor((bytes / 1000 ** power) * 10 + 0.5) / 10;
  // Go's %.0f rounds halves to even: 10.5 is "10".
  const whole = value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
  return `${value < 10 ? value.toFixed(1) : whole} ${units[power]}`;
}
