// One watcher, and the group of synced watchers that want exactly the same events: a group's events are encoded once for all.

import type { ByteWriter } from '../base/byte-writer.ts';
import type { Interval } from './interval-tree.ts';

/** What a watch stream (rpc/watch.ts) offers its watchers. */
export interface WatchSink {
  /** True while the client does not read: its watchers fall behind and catch up from the store later. */
  readonly isBlocked: boolean;
  /** One response's events: body[start, end) is `eventCount` WatchResponse.events fields, each an encoded Event. */
  sendEvents(watcher: Watcher, revision: number, body: Buffer, start: number, end: number, eventCount: number): void;
  /** The watcher is gone: it wanted revisions that are compacted. */
  sendCompacted(watcher: Watcher, compactRevision: number): void;
}

export interface WatcherOptions {
  /** Any int64: the client may choose it. */
  readonly id: bigint;
  readonly key: Buffer;
  /** Empty: the key alone; null: to the last key. */
  readonly end: Buffer | null;
  /** As asked; 0 for "from now on". */
  readonly startRevision: number;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
}

export const WatcherState = { synced: 0, future: 1, unsynced: 2, gone: 3 } as const;
export type WatcherState = (typeof WatcherState)[keyof typeof WatcherState];

export class Watcher {
  readonly sink: WatchSink;
  readonly id: bigint;
  readonly key: Buffer;
  readonly end: Buffer | null;
  readonly startRevision: number;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
  /** The next revision it has not been given. Never moves backward (etcd#15271, #20221). */
  minRevision: number;
  state: WatcherState = WatcherState.gone;
  /** The sink's own record of this watcher. */
  attachment: object | null = null;
  /** Where it is while synced. */
  group: WatchGroup | null = null;
  /** Events found for it in the running catch-up slice. */
  catchUpBody: ByteWriter | null = null;
  catchUpEventCount = 0;

  constructor(sink: WatchSink, options: WatcherOptions, minRevision: number) {
    this.sink = sink;
    this.id = options.id;
    this.key = options.key;
    this.end = options.end;
    this.startRevision = options.startRevision;
    this.noPut = options.noPut;
    this.noDelete = options.noDelete;
    this.prevKv = options.prevKv;
    this.minRevision = minRevision;
  }

  get isExact(): boolean {
    return this.end !== null && this.end.length === 0;
  }

  matches(buffer: Buffer, start: number, end: number): boolean {
    const order = this.key.compare(buffer, start, end);
    if (this.isExact) return order === 0;
    return order <= 0 && (this.end === null || this.end.compare(buffer, start, end) > 0);
  }
}

/** Same key range and same options: same events. */
export function groupName(watcher: Watcher): string {
  const flags = (watcher.noPut ? 1 : 0) | (watcher.noDelete ? 2 : 0) | (watcher.prevKv ? 4 : 0);
  const end = watcher.end === null ? '-' : `+${watcher.end.toString('latin1')}`;
  return `${flags}${watcher.key.length}:${watcher.key.toString('latin1')}${end}`;
}

export class WatchGroup implements Interval {
  readonly name: string;
  readonly key: Buffer;
  readonly end: Buffer | null;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly prevKv: boolean;
  readonly watchers: Set<Watcher> = new Set();
  /** Events of this turn that were not handed out yet; null while there are none, so that an idle group is small. */
  body: ByteWriter | null = null;
  /** Revision of the first event in `body`, and how many there are. */
  firstRevision = 0;
  eventCount = 0;

  constructor(name: string, watcher: Watcher) {
    this.name = name;
    this.key = watcher.key;
    this.end = watcher.end;
    this.noPut = watcher.noPut;
    this.noDelete = watcher.noDelete;
    this.prevKv = watcher.prevKv;
  }
}
