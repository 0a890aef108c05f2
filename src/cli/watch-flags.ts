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
    new Flag('bool', 'interactive', 'read watch and progress lines from standard input', { short: 'i' }),
    new Flag('bool', 'prefix', 'all keys that begin with <key>'),
    new Flag('int', 'rev', 'the revision to begin at (0 for from now on)'),
    new Flag('bool', 'prev-kv', 'also print what was there before'),
    new Flag('bool', 'progress-notify', 'have the server tell now and then which revision the watch has reached'),
  ];
}
