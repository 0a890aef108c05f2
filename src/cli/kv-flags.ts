// The flags of get, put and del, which are also those of the requests in a txn.

import { Flag } from './flag.ts';

export interface GetFlags {
  readonly consistency: string;
  readonly order: string;
  readonly sortBy: string;
  readonly limit: number;
  readonly prefix: boolean;
  readonly fromKey: boolean;
  readonly rev: number;
  readonly keysOnly: boolean;
  readonly countOnly: boolean;
  readonly printValueOnly: boolean;
  readonly minCreateRev: number;
  readonly maxCreateRev: number;
  readonly minModRev: number;
  readonly maxModRev: number;
  readonly stream: boolean;
}

export function getFlags(): Flag[] {
  return [
    new Flag('string', 'consistency', 'l for linearizable, s for serializable', {
      byDefault: 'l',
      shownDefault: '"l"',
    }),
    new Flag('string', 'order', 'ASCEND or DESCEND'),
    new Flag('string', 'sort-by', 'what to sort by: CREATE, KEY, MODIFY, VALUE or VERSION'),
    new Flag('int', 'limit', 'how many keys at most (0 for all)'),
    new Flag('bool', 'prefix', 'all keys that begin with <key>'),
    new Flag('bool', 'from-key', 'all keys from <key> on, in byte order'),
    new Flag('int', 'rev', 'the revision to read at (0 for the latest)'),
    new Flag('bool', 'keys-only', 'leave out the values'),
    new Flag('bool', 'count-only', 'only how many keys there are (with -w fields)'),
    new Flag('bool', 'print-value-only', 'leave out the keys (with -w simple)'),
    new Flag('int', 'min-create-rev', 'leave out keys that were created before this revision'),
    new Flag('int', 'max-create-rev', 'leave out keys that were created after this revision'),
    new Flag('int', 'min-mod-rev', 'leave out keys that were last written before this revision'),
    new Flag('int', 'max-mod-rev', 'leave out keys that were last written after this revision'),
    new Flag('bool', 'stream', 'read by RangeStream, in chunks'),
  ];
}

export interface PutFlags {
  readonly lease: string;
  readonly prevKv: boolean;
  readonly ignoreValue: boolean;
  readonly ignoreLease: boolean;
}

export function putFlags(): Flag[] {
  return [
    new Flag('string', 'lease', 'hexadecimal id of the lease that the key is attached to', {
      byDefault: '0',
      shownDefault: '"0"',
    }),
    new Flag('bool', 'prev-kv', 'also print what was there before'),
    new Flag('bool', 'ignore-value', 'keep the value that the key has'),
    new Flag('bool', 'ignore-lease', 'keep the lease that the key has'),
  ];
}

export interface DelFlags {
  readonly prefix: boolean;
  readonly prevKv: boolean;
  readonly fromKey: boolean;
  readonly range: boolean;
}

export function delFlags(): Flag[] {
  return [
    new Flag('bool', 'prefix', 'all keys that begin with <key>'),
    new Flag('bool', 'prev-kv', 'also print what was deleted'),
    new Flag('bool', 'from-key', 'all keys from <key> on, in byte order'),
    new Flag('bool', 'range', 'a range is meant: do not wait before deleting it'),
  ];
}

export const putHelp = `Sets a key to a value.

A value that is not on the command line is read from standard input: keelsonctl put <key> < file
A word that begins with '-' is a flag unless '--' stands before it: keelsonctl put <key> -- <value>
`;
