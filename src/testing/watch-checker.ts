// What a watch owes its client, held against the true history of the store: events in the order of revisions, each once, none left
// out, all of a revision together, no progress beyond what was delivered, a compacted revision told as such and only then, and after a
// break nothing missed or twice when the client goes on behind what it has. One WatchChecker is one such client, whatever streams it
// has used one after the other. The history may be learned later than the events: what was received waits until it can be judged.

/** A change as a watcher sees it. */
export interface TrueEvent {
  readonly isDelete: boolean;
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  readonly version: number;
}

/** Revision by revision what happened, learned from whoever applied it first. */
export class TrueHistory {
  private readonly events: (readonly TrueEvent[])[] = [];

  /** The first revision of a new store is 1, of nothing. */
  get revision(): number {
    return this.events.length + 1;
  }

  add(revision: number, events: readonly TrueEvent[]): void {
    if (revision !== this.revision + 1) throw new Error(`revision ${revision} after ${this.revision}`);
    this.events.push(events);
  }

  at(revision: number): readonly TrueEvent[] {
    return this.events[revision - 2] ?? [];
  }
}

export interface WatchRange {
  readonly key: string;
  /** As in a request: empty for the key alone, '\0' to the last key. */
  readonly end: string;
}

export interface WatchedEvent extends TrueEvent {
  readonly revision: number;
}

type Received =
  | { readonly kind: 'events'; readonly headerRevision: number; readonly events: readonly WatchedEvent[] }
  | { readonly kind: 'progress'; readonly headerRevision: number }
  | { readonly kind: 'compacted'; readonly compactRevision: number };

export class WatchViolation extends Error {
  override readonly name: string = 'WatchViolation';
}

export class WatchChecker {
  readonly range: WatchRange;
  private readonly history: TrueHistory;
  private readonly name: string;
  /** Everything before was received, as far as it was judged. */
  private next: number;
  /** The same for what was received: where the client would go on. */
  private resumeAt: number;
  private readonly waiting: Received[] = [];
  eventCount = 0;
  compactedCount = 0;

  constructor(history: TrueHistory, name: string, range: WatchRange, startRevision: number) {
    this.history = history;
    this.name = name;
    this.range = range;
    this.next = this.resumeAt = startRevision;
  }

  /** The start revision of a stream that goes on. */
  get resumeRevision(): number {
    return this.resumeAt;
  }

  events(headerRevision: number, events: readonly WatchedEvent[]): void {
    const last = events.at(-1);
    if (last === undefined) this.fail('a response without events');
    this.resumeAt = Math.max(this.resumeAt, last.revision + 1);
    this.waiting.push({ kind: 'events', headerRevision, events });
  }

  /** Of a stream that has everything: nothing up to the revision is to come. */
  progress(headerRevision: number): void {
    this.resumeAt = Math.max(this.resumeAt, headerRevision + 1);
    this.waiting.push({ kind: 'progress', headerRevision });
  }

  /** The watch was cancelled since what it wants is compacted. The client goes on at the compact revision. */
  compacted(compactRevision: number): void {
    this.waiting.push({ kind: 'compacted', compactRevision });
    this.resumeAt = Math.max(this.resumeAt, compactRevision);
  }

  /** Judges what was received as far as the history is known. Throws WatchViolation. */
  check(): void {
    while (this.waiting.length > 0) {
      const first = this.waiting[0]!;
      const needs = first.kind === 'compacted' ? first.compactRevision : first.headerRevision;
      if (needs > this.history.revision) return;
      this.waiting.shift();
      if (first.kind === 'events') this.judge(first.headerRevision, first.events);
      else if (first.kind === 'progress') this.passOver(first.headerRevision + 1, 'progress beyond what was delivered');
      else this.judgeCompacted(first.compactRevision);
    }
  }

  /** Throws unless everything up to `revision` was received. */
  checkComplete(revision: number): void {
    this.check();
    if (this.waiting.length > 0) this.fail('events of revisions that nobody has applied');
    this.passOver(revision + 1, 'the end');
  }

  private judge(headerRevision: number, events: readonly WatchedEvent[]): void {
    let at = 0;
    while (at < events.length) {
      const { revision } = events[at]!;
      if (revision < this.next) this.fail(`revision ${revision} again or out of order, expected from ${this.next} on`);
      if (revision > headerRevision) this.fail(`an event of revision ${revision} under a header of ${headerRevision}`);
      this.passOver(revision, `an event of revision ${revision}`);
      for (const expected of this.wanted(revision)) {
        const event = events[at++];
        if (event === undefined || event.revision !== revision) this.fail(`revision ${revision} is not whole`);
        if (!isSame(event, expected)) this.fail(`at ${revision} ${text(event)} instead of ${text(expected)}`);
        this.eventCount++;
      }
      if (events[at]?.revision === revision) this.fail(`revision ${revision} has an event more than happened`);
      this.next = revision + 1;
    }
  }

  private judgeCompacted(compactRevision: number): void {
    if (this.next >= compactRevision)
      this.fail(`compacted at ${compactRevision}, but it wants only from ${this.next} on`);
    this.compactedCount++;
    this.next = compactRevision;
  }

  /** The client has been told of everything before `revision`. */
  private passOver(revision: number, by: string): void {
    for (; this.next < revision; this.next++) {
      const missed = this.wanted(this.next)[0];
      if (missed !== undefined) this.fail(`misses revision ${this.next} (${text(missed)}), by ${by}`);
    }
  }

  private wanted(revision: number): TrueEvent[] {
    const { key, end } = this.range;
    return this.history.at(revision).filter((event) => {
      if (end === '') return event.key === key;
      return event.key >= key && (end === '\0' || event.key < end);
    });
  }

  private fail(what: string): never {
    throw new WatchViolation(`watch ${this.name}: ${what}`);
  }
}

function isSame(a: TrueEvent, b: TrueEvent): boolean {
  if (a.isDelete !== b.isDelete || a.key !== b.key) return false;
  return a.isDelete || (a.value === b.value && a.createRevision === b.createRevision && a.version === b.version);
}

function text({ isDelete, key, value, version }: TrueEvent): string {
  return isDelete ? `delete ${key}` : `put ${key}=${value} (version ${version})`;
}
