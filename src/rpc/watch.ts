// etcdserverpb.Watch: one stream with many watchers on it. A bad watcher never fails the stream: it is answered created and
// canceled with its reason. A client that does not read blocks its own stream alone: the hub then leaves its watchers behind
// and they catch up when it reads again. Behaviour is that of etcd's v3rpc/watch.go.

import { failpoint } from '../base/failpoint.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router, StreamHandler } from '../grpc/router.ts';
import { watchCopyBytesMax } from '../limits.ts';
import type { Watcher, WatchSink } from '../mvcc/watcher.ts';
import { FilterType, type WatchCreateRequest, WatchRequest } from '../proto/etcdserverpb.ts';
import { decode, type Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { Reader } from '../proto/wire.ts';
import type { Member } from '../server/member.ts';
import type { WatchMetrics } from '../telemetry/storage-metrics.ts';
import { failMalformed } from './answer.ts';
import { WatchResponseEncoder, watchIdField } from './watch-response.ts';

const INVALID_WATCH_ID = -1n;
const FROM_FIRST_KEY = Buffer.from([0]);

export interface WatchOptions {
  /** --max-request-bytes: where a fragmenting watcher's responses are cut. */
  readonly fragmentBytes: number;
  /** --watch-progress-notify-interval, before the jitter. */
  readonly progressIntervalMs: number;
  readonly random: () => number;
  readonly setTimer: (delayMs: number, callback: () => void) => unknown;
  readonly counters: { streams: number };
  readonly metrics: WatchMetrics;
}

export function registerWatch(router: Router, member: Member, options: WatchOptions): void {
  router.stream('etcdserverpb.Watch', 'Watch', 'bidi', new WatchHandler(member, options));
}

class WatchHandler implements StreamHandler {
  private readonly member: Member;
  private readonly options: WatchOptions;
  constructor(member: Member, options: WatchOptions) {
    this.member = member;
    this.options = options;
  }

  open(call: ServerCall): void {
    call.context = new WatchStream(this.member, this.options, call);
  }

  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = decode(WatchRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else (call.context as WatchStream).request(request);
  }

  /** etcd ends the stream's receiving side only: watchers go on until the client cancels the call. */
  halfClose(): void {}
}

interface Watched {
  readonly watcher: Watcher;
  /** Its id as a response carries it. */
  readonly idField: Buffer;
  readonly fragment: boolean;
  readonly progressNotify: boolean;
  /** No event since the last progress tick: a notification is due at the next. */
  isQuiet: boolean;
}

class WatchStream implements WatchSink {
  isBlocked = false;
  private readonly member: Member;
  private readonly options: WatchOptions;
  private readonly call: ServerCall;
  private readonly encoder: WatchResponseEncoder;
  private readonly watched = new Map<bigint, Watched>();
  private nextId = 0n;
  private progressTimerOn = false;
  private isOpen = true;

  constructor(member: Member, options: WatchOptions, call: ServerCall) {
    this.member = member;
    this.options = options;
    this.call = call;
    this.encoder = new WatchResponseEncoder(member.parts.header);
    options.counters.streams++;
    call.onCancel = () => this.close();
    call.onDrain = () => {
      this.isBlocked = false;
      this.member.wake();
    };
  }

  private close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.options.counters.streams--;
    for (const { watcher } of this.watched.values()) this.member.parts.hub.remove(watcher);
    this.watched.clear();
  }

  request(request: Message<typeof WatchRequest>): void {
    if (request.progressRequest !== undefined) this.progressAll();
    else if (request.cancelRequest !== undefined) this.cancel(request.cancelRequest.watchId);
    else if (request.createRequest !== undefined) this.create(request.createRequest);
  }

  private get revision(): number {
    return this.member.parts.store.currentRevision;
  }

  private create(request: Message<typeof WatchCreateRequest>): void {
    const { hub } = this.member.parts;
    const key = request.key.length === 0 ? FROM_FIRST_KEY : Buffer.from(request.key);
    const isToLast = request.rangeEnd.length === 1 && request.rangeEnd[0] === 0;
    const end = isToLast ? null : Buffer.from(request.rangeEnd);
    if (request.startRevision < 0) {
      this.refuse(etcdErrors.compacted.message);
      return;
    }
    if (end !== null && end.length > 0 && key.compare(end) >= 0) {
      this.refuse('mvcc: watcher range is empty');
      return;
    }
    if (request.watchId !== 0n && this.watched.has(request.watchId)) {
      this.refuse('mvcc: duplicate watch ID provided on the WatchStream');
      return;
    }
    const id = request.watchId === 0n ? this.chooseId() : request.watchId;
    this.sendControl(id, true, false, 0, '');
    const watcher = hub.add(this, {
      id,
      key,
      end,
      startRevision: request.startRevision,
      noPut: request.filters.includes(FilterType.noPut),
      noDelete: request.filters.includes(FilterType.noDelete),
      prevKv: request.prevKv,
    });
    const { fragment, progressNotify } = request;
    // A watcher created between two ticks waits for the second: etcd marks it due at once.
    const watched = { watcher, idField: watchIdField(id), fragment, progressNotify, isQuiet: true };
    watcher.attachment = watched;
    this.watched.set(id, watched);
    if (progressNotify) this.startProgressTimer();
    this.member.wake();
  }

  private chooseId(): bigint {
    while (this.watched.has(this.nextId)) this.nextId++;
    return this.nextId++;
  }

  private refuse(reason: string): void {
    this.sendControl(INVALID_WATCH_ID, true, true, 0, reason);
  }

  private cancel(id: bigint): void {
    const watched = this.watched.get(id);
    if (watched === undefined) return;
    this.member.parts.hub.flush();
    this.watched.delete(id);
    this.member.parts.hub.remove(watched.watcher);
    this.sendControl(id, false, true, 0, '');
  }

  private sendControl(id: bigint, created: boolean, canceled: boolean, compactRevision: number, reason: string): void {
    const bytes = this.encoder.control(this.revision, id, created, canceled, compactRevision, reason);
    const startMs = this.member.parts.nowMs();
    if (!this.call.send(bytes, 0, bytes.length)) this.isBlocked = true;
    if (created) this.options.metrics.sendLoopControl.observe((this.member.parts.nowMs() - startMs) / 1000);
  }

  // --- Progress ---

  /** Answered only when every watcher of the stream is synced; otherwise nothing is sent at all, as in etcd. */
  private progressAll(): void {
    const { hub } = this.member.parts;
    hub.flush();
    if (this.isBlocked || this.watched.size === 0) return;
    for (const { watcher } of this.watched.values()) if (!hub.isSynced(watcher)) return;
    this.sendControl(INVALID_WATCH_ID, false, false, 0, '');
  }

  private startProgressTimer(): void {
    if (this.progressTimerOn) return;
    this.progressTimerOn = true;
    const { progressIntervalMs, random, setTimer } = this.options;
    setTimer(progressIntervalMs * (1 + random() / 10), () => {
      this.progressTimerOn = false;
      if (this.isOpen) this.notifyProgress();
    });
  }

  private notifyProgress(): void {
    const { hub } = this.member.parts;
    hub.flush();
    const startMs = this.member.parts.nowMs();
    let wantsTimer = false;
    for (const [id, watched] of this.watched) {
      if (!watched.progressNotify) continue;
      wantsTimer = true;
      if (watched.isQuiet && !this.isBlocked && hub.isSynced(watched.watcher)) {
        this.sendControl(id, false, false, 0, '');
      }
      watched.isQuiet = true;
    }
    this.options.metrics.sendLoopProgress.observe((this.member.parts.nowMs() - startMs) / 1000);
    if (wantsTimer) this.startProgressTimer();
  }

  // --- WatchSink ---

  sendEvents(watcher: Watcher, revision: number, body: Buffer, start: number, end: number, eventCount: number): void {
    failpoint('beforeSendWatchResponse');
    const startMs = this.member.parts.nowMs();
    this.sendResponse(watcher, revision, body, start, end);
    const seconds = (this.member.parts.nowMs() - startMs) / 1000;
    this.options.metrics.sendLoop.observe(seconds);
    this.options.metrics.sendLoopPerEvent.observe(seconds / eventCount);
  }

  private sendResponse(watcher: Watcher, revision: number, body: Buffer, start: number, end: number): void {
    const watched = watcher.attachment as Watched;
    watched.isQuiet = false;
    if (watched.fragment && end - start >= this.options.fragmentBytes) {
      this.sendFragments(watched, revision, body, start, end);
      return;
    }
    if (end - start > watchCopyBytesMax) {
      this.sendPart(watched, revision, body, start, end, false);
      return;
    }
    const { bytes, length } = this.encoder.events(revision, watched.idField, body, start, end);
    if (!this.call.send(bytes, 0, length)) this.isBlocked = true;
  }

  private sendPart(
    watched: Watched,
    revision: number,
    body: Buffer,
    start: number,
    end: number,
    hasMore: boolean,
  ): void {
    const head = this.encoder.eventsHead(revision, watched.idField, hasMore);
    if (!this.call.sendParts([head, body.subarray(start, end)])) this.isBlocked = true;
  }

  /** Splits between events, each part below the bound unless one event alone is above it. */
  private sendFragments(watched: Watched, revision: number, body: Buffer, start: number, end: number): void {
    const reader = new Reader();
    reader.reset(body, start, end);
    let partStart = start;
    let previousEnd = start;
    while (reader.readTag()) {
      reader.readBytes();
      if (reader.bytesEnd - partStart >= this.options.fragmentBytes && previousEnd > partStart) {
        this.sendPart(watched, revision, body, partStart, previousEnd, true);
        partStart = previousEnd;
      }
      previousEnd = reader.bytesEnd;
    }
    this.sendPart(watched, revision, body, partStart, end, false);
  }

  sendCompacted(watcher: Watcher, compactRevision: number): void {
    // Its id stays taken until the client cancels it, and until then no progress is told on this stream, as in etcd.
    // etcd sends this one answer without a revision in its header.
    const bytes = this.encoder.control(0, watcher.id, false, true, compactRevision, '');
    if (!this.call.send(bytes, 0, bytes.length)) this.isBlocked = true;
  }
}
