// The flags of watch, also of the watch lines that `watch -i` reads.

import { Flag } from './flag.ts';

export interface WatchFlags {
  readonly interactive: boolean;
  readonly prefix: boolean;
  readonly rev: number;
  readonly prevKv: boolean;
  readonly progressNotify: boolean;
}

export function watchFlags(): Flag[] {
  return [
    new Flag('bool', 'interactive', 'Interactive mode', { short: 'i' }),
    new Flag('bool', 'prefix', 'Watch on a prefix if prefix is set'),
    new Flag('int', 'rev', 'Revision to start watching'),
    new Flag('bool', 'prev-kv', 'get the previous key-value pair before the event happens'),
    new Flag('bool', 'progress-notify', 'get periodic watch progress notification from server'),
  ];
}
