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
    new Flag('string', 'consistency', 'Linearizable(l) or Serializable(s)', { byDefault: 'l', shownDefault: '"l"' }),
    new Flag('string', 'order', 'Order of results; ASCEND or DESCEND (ASCEND by default)'),
    new Flag('string', 'sort-by', 'Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION'),
    new Flag('int', 'limit', 'Maximum number of results'),
    new Flag('bool', 'prefix', 'Get keys with matching prefix'),
    new Flag('bool', 'from-key', 'Get keys that are greater than or equal to the given key using byte compare'),
    new Flag('int', 'rev', 'Specify the kv revision'),
    new Flag('bool', 'keys-only', 'Get only the keys'),
    new Flag('bool', 'count-only', 'Get only the count'),
    new Flag('bool', 'print-value-only', 'Only write values when using the "simple" output format'),
    new Flag('int', 'min-create-rev', 'Minimum create revision'),
    new Flag('int', 'max-create-rev', 'Maximum create revision'),
    new Flag('int', 'min-mod-rev', 'Minimum modification revision'),
    new Flag('int', 'max-mod-rev', 'Maximum modification revision'),
    new Flag('bool', 'stream', 'Use the RangeStream RPC'),
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
    new Flag('string', 'lease', 'lease ID (in hexadecimal) to attach to the key', {
      byDefault: '0',
      shownDefault: '"0"',
    }),
    new Flag('bool', 'prev-kv', 'return the previous key-value pair before modification'),
    new Flag('bool', 'ignore-value', 'updates the key using its current value'),
    new Flag('bool', 'ignore-lease', 'updates the key using its current lease'),
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
    new Flag('bool', 'prefix', 'delete keys with matching prefix'),
    new Flag('bool', 'prev-kv', 'return deleted key-value pairs'),
    new Flag('bool', 'from-key', 'delete keys that are greater than or equal to the given key using byte compare'),
    new Flag('bool', 'range', 'delete range of keys'),
  ];
}

export const putHelp = `Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input:

$ cat file | put <key>
`;
