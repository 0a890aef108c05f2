// Ranges of keys as the command line writes them: a key, a key and an end, a prefix, everything from a key on.

import { bytesOf } from './byte-text.ts';
import { badArguments } from './exit.ts';

export interface KeyRange {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
}

const zero = Buffer.from([0]);

/** The first key after all that begin with `prefix`; a zero byte, which means "no end", when there is none. */
export function prefixEnd(prefix: Buffer): Buffer {
  for (let last = prefix.length - 1; last >= 0; last--) {
    if (prefix[last]! < 0xff) {
      const end = Buffer.from(prefix.subarray(0, last + 1));
      end[last]!++;
      return end;
    }
  }
  return zero;
}

/** Words and flags of get and del; the words were counted before. */
export function keyRange(words: readonly string[], flags: { prefix: boolean; fromKey: boolean }): KeyRange {
  const key = bytesOf(words[0]!);
  if (flags.prefix || flags.fromKey) {
    if (words.length > 1) {
      throw badArguments('too many arguments, only accept one argument when `--prefix` or `--from-key` is set');
    }
    if (key.length === 0) return { key: zero, rangeEnd: zero };
    return { key, rangeEnd: flags.prefix ? prefixEnd(key) : zero };
  }
  return words.length > 1 ? { key, rangeEnd: bytesOf(words[1]!) } : { key };
}

export function checkPrefixAndFromKey(flags: { readonly prefix: boolean; readonly fromKey: boolean }): void {
  if (flags.prefix && flags.fromKey) {
    throw badArguments('`--prefix` and `--from-key` cannot be set at the same time, choose one');
  }
}
