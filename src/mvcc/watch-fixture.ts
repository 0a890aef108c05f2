// For the tests of watch-hub.ts: streams that record what they are sent and hold every response against the history at once. The
// rules: the events of a watcher are a prefix of what it should get, cut between revisions (so ordered, unique, complete and
// atomic), nothing after its removal, nothing while its stream is blocked, and the header's revision is the current one.

import assert from 'node:assert/strict';
import { decode } from '../proto/message.ts';
import { Event } from '../proto/mvccpb.ts';
import { batchHeadBytes, type EventBatch } from './event-batch.ts';
import { CheckedStore, type Kv, plainKv } from './store-fixture.ts';
import { WatchHub } from './watch-hub.ts';
import { EventFilter, Watcher, type WatchSink } from './watcher.ts';

export interface Change {
  readonly main: number;
  readonly isDelete: boolean;
  readonly key: string;
  /** Of a put. */
  readonly kv: Kv | null;
}

export interface WatchOptions {
  readonly key: string;
  /** As in a request: empty for the key alone, '\0' to the last key. */
  readonly end?: string;
  readonly start?: number;
  readonly noPut?: boolean;
  readonly noDelete?: boolean;
  readonly prevKv?: boolean;
}

const EventList = { events: { no: 11, kind: Event as typeof Event, repeated: true } } as const;

/** A watcher and what it should get. */
export class Watched {
  readonly options: WatchOptions;
  readonly firstRevision: number;
  watcher!: Watcher;
  /** Events that it was given: so many of its expected ones. */
  givenCount = 0;
  responseCount = 0;
  isGone = false;
  isCompacted = false;

  constructor(options: WatchOptions, firstRevision: number) {
    this.options = options;
    this.firstRevision = firstRevision;
  }

  wants(change: Change): boolean {
    const { key, end = '', noPut, noDelete } = this.options;
    if (change.main < this.firstRevision || (change.isDelete ? noDelete : noPut)) return false;
    return end === '' ? change.key === key : change.key >= key && (end === '\0' || change.key < end);
  }
}

/** A hub over a checked store; commits go through write(). */
export class WatchBench {
  readonly checked: CheckedStore = new CheckedStore();
  readonly hub: WatchHub;
  readonly history: Change[] = [];

  constructor() {
    const { store, storage } = this.checked;
    this.hub = new WatchHub(store, storage);
    store.onCommit = (main) => {
      // The checked store learns of the commit after the real one: take the running state.
      const { states, running } = this.checked.history;
      states.push(running);
      this.hub.committed(main, store.changes);
      states.pop();
    };
  }

  get revision(): number {
    return this.checked.revision;
  }

  /** One transaction: [key, value] puts, [key] deletes if it is there. */
  write(...ops: readonly (readonly [string, string?])[]): void {
    const main = this.revision + 1;
    this.checked.begin();
    const changes: Change[] = [];
    for (const [key, value] of ops) {
      if (value === undefined) {
        for (const deleted of this.checked.delete(key)) changes.push({ main, isDelete: true, key: deleted, kv: null });
      } else {
        this.checked.put(key, value);
        changes.push({ main, isDelete: false, key, kv: this.checked.history.running.get(key)! });
      }
    }
    this.history.push(...changes);
    this.checked.commit();
  }

  /** Catches up until there is nothing to do; returns the number of slices. */
  catchUpAll(): number {
    let slices = 0;
    while (this.hub.hasCatchUp) {
      this.hub.catchUp();
      assert.ok(++slices < 10_000, 'catching up does not end');
    }
    return slices;
  }
}

export class RecordingStream implements WatchSink {
  /** How often the hub asked whether the stream is blocked. */
  askedCount = 0;
  /** Those that it was sent. */
  readonly batches: Set<EventBatch> = new Set();
  private blocked = false;
  readonly watched: Map<Watcher, Watched> = new Map();
  /** Called after each response: may block the stream or remove watchers, as a socket's write may. */
  onSend: (() => void) | null = null;
  private readonly bench: WatchBench;

  constructor(bench: WatchBench) {
    this.bench = bench;
  }

  get isBlocked(): boolean {
    this.askedCount++;
    return this.blocked;
  }

  /** As rpc/watch.ts: the hub is told when the client reads again. */
  setBlocked(blocked: boolean): void {
    this.blocked = blocked;
    if (!blocked) this.bench.hub.resume(this);
  }

  add(options: WatchOptions): Watched {
    const { hub, revision } = this.bench;
    const start = options.start ?? 0;
    const watched = new Watched(options, start === 0 ? revision + 1 : start);
    const { key, end = '', noPut, noDelete, prevKv } = options;
    watched.watcher = new Watcher(this, {
      id: this.watched.size,
      key,
      end: end === '\0' ? null : end,
      startRevision: start,
      filter:
        (noPut ? EventFilter.noPut : 0) | (noDelete ? EventFilter.noDelete : 0) | (prevKv ? EventFilter.prevKv : 0),
    });
    this.watched.set(watched.watcher, watched);
    hub.add(watched.watcher);
    return watched;
  }

  remove(watched: Watched): void {
    watched.isGone = true;
    this.bench.hub.remove(watched.watcher);
  }

  close(): void {
    for (const watched of this.watched.values()) this.remove(watched);
  }

  live(): Watched[] {
    return [...this.watched.values()].filter((watched) => !watched.isGone);
  }

  sendEvents(watcher: Watcher, batch: EventBatch): void {
    const { revision, body } = batch;
    assert.ok(!this.blocked, 'a blocked stream is sent events');
    const watched = this.watched.get(watcher);
    assert.ok(watched !== undefined && !watched.isGone, 'a watcher that is gone is sent events');
    assert.equal(revision, this.bench.checked.store.currentRevision, 'the revision of the header');
    const { events } = decode(EventList, body.bytes, batchHeadBytes, body.length)!;
    assert.ok(events.length > 0, 'a response without events');
    assert.equal(events.length, batch.eventCount);
    this.batches.add(batch);
    assert.equal(batch.firstRevision, (events[0] as EventMessage).kv!.modRevision);
    // The head of a response may be written there: the next watcher's must not find it.
    body.bytes.fill(0xee, 0, batchHeadBytes);
    const expected = this.bench.history.filter((change) => watched.wants(change));
    for (const [i, event] of events.entries()) {
      const change: Change | undefined = expected[watched.givenCount + i];
      assert.ok(change !== undefined, 'an event that the watcher does not want, or twice');
      this.checkEvent(watched, event as EventMessage, change);
    }
    watched.givenCount += events.length;
    watched.responseCount++;
    const next = expected[watched.givenCount];
    const last = expected[watched.givenCount - 1]!;
    assert.ok(next === undefined || next.main > last.main, 'the events of a revision are split');
    this.onSend?.();
  }

  private checkEvent(watched: Watched, event: EventMessage, change: Change): void {
    const { checked } = this.bench;
    assert.equal(event.type, change.isDelete ? 1 : 0);
    assert.deepEqual(plainKv(event.kv!), change.kv ?? tombstone(change));
    const isCreate = change.kv?.create === change.main;
    const previous = isCreate ? undefined : checked.history.states[change.main - 1]!.get(change.key);
    if (!watched.options.prevKv || previous === undefined) assert.equal(event.prevKv, undefined, 'a previous value');
    else if (event.prevKv !== undefined) assert.deepEqual(plainKv(event.prevKv), previous);
    else assert.ok(change.main - 1 < checked.store.compactRevision, 'the previous value is missing');
  }

  sendCompacted(watcher: Watcher, compactRevision: number): void {
    const watched = this.watched.get(watcher)!;
    assert.ok(!this.blocked && !watched.isGone, 'cancelled while blocked or gone');
    assert.equal(compactRevision, this.bench.checked.store.compactRevision);
    const given = this.bench.history.filter((change) => watched.wants(change))[watched.givenCount - 1];
    assert.ok((given?.main ?? 0) < compactRevision, 'cancelled by a compaction of what it was given');
    assert.ok(watcher.minRevision < compactRevision, 'cancelled although what it wants is there');
    watched.isGone = watched.isCompacted = true;
    this.onSend?.();
  }

  /** All that is left has everything there is. */
  checkComplete(): void {
    for (const watched of this.live()) {
      const expected = this.bench.history.filter((change) => watched.wants(change));
      assert.equal(watched.givenCount, expected.length, `${JSON.stringify(watched.options)} lacks events`);
    }
  }
}

type EventMessage = NonNullable<ReturnType<typeof decode<typeof Event>>>;
/** A delete's kv: the key and the revision. */
function tombstone(change: Change): Kv {
  return { key: change.key, value: '', create: 0, mod: change.main, version: 0, lease: 0n };
}
