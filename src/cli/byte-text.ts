// Text of the command line as bytes. Keys and values are any bytes, but Node decodes its arguments as UTF-8 and loses what is
// none. So every word of a command line is kept as a byte string: a string whose characters are bytes (latin1), which splits,
// compares and matches like any string and turns into bytes without loss.

import { readFileSync } from 'node:fs';
import { goQuote } from '../config/go-value.ts';

/** The arguments of this process as byte strings. */
export function processArguments(): string[] {
  const words = process.argv.slice(2);
  if (words.some((word) => word.includes('\ufffd'))) {
    const raw = rawArguments();
    if (raw.length >= words.length) return words.length === 0 ? [] : raw.slice(-words.length);
  }
  return words.map(byteString);
}

/** Only Linux tells them; elsewhere bytes that are no UTF-8 stay lost. */
function rawArguments(): string[] {
  try {
    return readFileSync('/proc/self/cmdline', 'latin1').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Of ordinary text. */
export function byteString(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

export function bytesOf(byteText: string): Buffer {
  return Buffer.from(byteText, 'latin1');
}

/** For messages and for what is text by its nature, such as URLs and file names. */
export function textOf(byteText: string): string {
  return Buffer.from(byteText, 'latin1').toString('utf8');
}

/** Go's %q of a byte string: as strconv.Quote, with \x for what is no UTF-8. */
export function quoteBytes(bytes: Buffer): string {
  let out = '"';
  let start = 0;
  while (start < bytes.length) {
    const end = validEnd(bytes, start);
    if (end > start) out += goQuote(bytes.toString('utf8', start, end)).slice(1, -1);
    start = end;
    if (start < bytes.length) out += `\\x${bytes[start++]!.toString(16).padStart(2, '0')}`;
  }
  return `${out}"`;
}

/** Where the valid UTF-8 that begins at `start` ends. */
function validEnd(bytes: Buffer, start: number): number {
  let position = start;
  while (position < bytes.length) {
    const length = runeLength(bytes, position);
    if (length === 0) break;
    position += length;
  }
  return position;
}

/** Bytes of the code point at `position`, 0 when there is none: RFC 3629's table. */
function runeLength(bytes: Buffer, position: number): number {
  const first = bytes[position]!;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (position + length > bytes.length) return 0;
  const second = bytes[position + 1]!;
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  for (let index = 2; index < length; index++) if ((bytes[position + index]! & 0xc0) !== 0x80) return 0;
  return length;
}

const simpleEscapes: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  '\\': 0x5c,
  '"': 0x22,
};

/** strconv.Unquote of "…" or `…` as a byte string; null when it is neither or has an escape that Go does not know. */
export function unquote(quoted: string): string | null {
  const quote = quoted[0];
  if (quoted.length < 2 || quoted.at(-1) !== quote) return null;
  const inner = quoted.slice(1, -1);
  if (quote === '`') return inner.includes('`') ? null : inner.replaceAll('\r', '');
  if (quote !== '"') return null;
  let out = '';
  const token = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\"]))|([^"\\\n])/gy;
  while (token.lastIndex < inner.length) {
    const match = token.exec(inner);
    if (match === null) return null;
    const [, hex, short, long, octal, simple, plain] = match;
    if (plain !== undefined) out += plain;
    else if (simple !== undefined) out += String.fromCharCode(simpleEscapes[simple]!);
    else if (hex !== undefined) out += String.fromCharCode(Number.parseInt(hex, 16));
    else if (octal !== undefined) {
      const code = Number.parseInt(octal, 8);
      if (code > 255) return null;
      out += String.fromCharCode(code);
    } else {
      const code = Number.parseInt((short ?? long)!, 16);
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return null;
      out += byteString(String.fromCodePoint(code));
    }
  }
  return out;
}

/** strings.TrimSpace for what is typed: the ASCII spaces. */
export function trimSpace(byteText: string): string {
  return byteText.replace(/^[\t\n\v\f\r ]+|[\t\n\v\f\r ]+$/g, '');
}
