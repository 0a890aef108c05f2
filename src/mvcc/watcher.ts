// One watcher, and several that want exactly the same events: these are encoded once for all. Keys are strings with one character
// a byte: they order as the bytes do, compare in a tenth of the time, and a map finds by them without a second copy.
//
// An idle watcher should cost little: it is one object, its key and an entry in two maps (bench/run.ts idle-watch). So a watcher
// that nobody shares its events with is its own group, and the stream's notes on it are fields of a subclass (rpc/watch.ts).

import type { EventBatch } from './event-batch.ts';

/** What a watch stream (rpc/watch.ts) offers its watchers. */
export interface WatchSink {
  /**
   * True while the client does not read: its watchers fall behind and catch up from the store later. Whoever clears it calls
   * WatchHub.resume().
   */
  readonly isBlocked: boolean;
  /** One response. The batch is the hub's again when this returns, unless it is too large to be copied (event-batch.ts). */
  sendEvents(watcher: Watcher, batch: EventBatch): void;
  /** The watcher is gone: it wanted revisions that are compacted. */
  sendCompacted(watcher: Watcher, compactRevision: number): void;
}

/** What a watcher does not want, and PREV_KV: bits of Recipient.filter. */
export const EventFilter = { none: 0, noPut: 1, noDelete: 2, prevKv: 4 } as const;

/** Any int64: the client may choose it. A number where that is exact, never negative. */
export type WatchId = number | bigint;

export interface WatcherOptions {
  readonly id: WatchId;
  readonly key: string;
  /** Empty: the key alone; null: to the last key. */
  readonly end: string | null;
  /** As asked; 0 for "from now on". */
  readonly startRevision: number;
  /** Bits of EventFilter. */
  readonly filter: number;
}

/** Who is given events as one: a watcher, or a group. */
export abstract class Recipient {
  key: string;
  end: string | null;
  readonly filter: number;
  /** In an index: the next one of the same range, with another filter. */
  next: Recipient | null = null;
  /** Events that were not handed out yet; null while there are none. */
  batch: EventBatch | null = null;

  constructor(key: string, end: string | null, filter: number) {
    this.key = key;
    this.end = end;
    this.filter = filter;
  }

  get isExact(): boolean {
    return this.end === '';
  }

  matches(key: string): boolean {
    if (this.end === '') return key === this.key;
    return key >= this.key && (this.end === null || key < this.end);
  }
}

export const WatcherState = { synced: 0, future: 1, unsynced: 2, gone: 3 } as const;
export type WatcherState = (typeof WatcherState)[keyof typeof WatcherState];

export class Watcher extends Recipient {
  readonly sink: WatchSink;
  readonly id: WatchId;
  readonly startRevision: number;
  /** The next revision that it has not been given; while it is synced, where it was when it became so. Never moves backward
   * (etcd#15271, #20221). */
  minRevision = 0;
  state: WatcherState = WatcherState.gone;
  /** While it is synced and not alone. */
  group: WatchGroup | null = null;

  constructor(sink: WatchSink, options: WatcherOptions) {
    super(options.key, options.end, options.filter);
    this.sink = sink;
    this.id = options.id;
    this.startRevision = options.startRevision;
  }
}

/** Two or more watchers of the same range with the same filter, or what is left of them. */
export class WatchGroup extends Recipient {
  readonly watchers: Set<Watcher> = new Set();

  constructor(like: Recipient) {
    super(like.key, like.end, like.filter);
  }
}
