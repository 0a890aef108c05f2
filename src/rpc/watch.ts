// etcdserverpb.Watch: one stream with many watchers on it. A bad watcher never fails the stream: it is answered created and
// canceled with its reason. A client that does not read blocks its own stream alone: the hub then leaves its watchers behind
// and they catch up when it reads again. Behaviour is that of etcd's v3rpc/watch.go.

import { failpoint } from '../base/failpoint.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router, StreamHandler } from '../grpc/router.ts';
import { batchHeadBytes, type EventBatch } from '../mvcc/event-batch.ts';
import type { HandOutObserver } from '../mvcc/watch-hub.ts';
import {
  EventFilter,
  Watcher,
  type WatcherOptions,
  WatcherState,
  type WatchId,
  type WatchSink,
} from '../mvcc/watcher.ts';
import { FilterType, type WatchCreateRequest, WatchRequest } from '../proto/etcdserverpb.ts';
import { decode, type Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { Reader } from '../proto/wire.ts';
import type { Member } from '../server/member.ts';
import type { WatchMetrics } from '../telemetry/storage-metrics.ts';
import { failMalformed } from './answer.ts';
import { noWatchId, WatchResponseEncoder } from './watch-response.ts';

const FROM_FIRST_KEY = '\0';

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
  member.parts.hub.observer = new SendLoopTimes(member.parts.nowMs, options.metrics);
  router.stream('etcdserverpb.Watch', 'Watch', 'bidi', new WatchHandler(member, options));
}

/** etcd's histograms of its send loop. Each response counts; those that are sent in one go share the time that they took. */
class SendLoopTimes implements HandOutObserver {
  private readonly nowMs: () => number;
  private readonly metrics: WatchMetrics;
  private lastMs = 0;

  constructor(nowMs: () => number, metrics: WatchMetrics) {
    this.nowMs = nowMs;
    this.metrics = metrics;
  }

  begin(): void {
    this.lastMs = this.nowMs();
  }

  sent(responseCount: number, eventCount: number): void {
    const now = this.nowMs();
    const seconds = (now - this.lastMs) / 1000 / responseCount;
    this.lastMs = now;
    this.metrics.sendLoop.observeMany(seconds, responseCount);
    this.metrics.sendLoopPerEvent.observeMany(seconds / eventCount, responseCount);
  }
}

class WatchHandler implements StreamHandler {
  private readonly member: Member;
  private readonly options: WatchOptions;
  private readonly encoder: WatchResponseEncoder;

  constructor(member: Member, options: WatchOptions) {
    this.member = member;
    this.options = options;
    this.encoder = new WatchResponseEncoder(member.parts.header);
  }

  open(call: ServerCall): void {
    call.context = new WatchStream(this.member, this.options, this.encoder, call);
  }

  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = decode(WatchRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else (call.context as WatchStream).request(request);
  }

  /** etcd ends the stream's receiving side only: watchers go on until the client cancels the call. */
  halfClose(): void {}
}

class StreamWatcher extends Watcher {
  readonly fragment: boolean;
  readonly progressNotify: boolean;
  /** No event since the last progress tick: a notification is due at the next. One that is created between two ticks waits for
   * the second: etcd marks it due at once. */
  isQuiet = true;

  constructor(stream: WatchStream, options: WatcherOptions, fragment: boolean, progressNotify: boolean) {
    super(stream, options);
    this.fragment = fragment;
    this.progressNotify = progressNotify;
  }
}

class WatchStream implements WatchSink {
  isBlocked = false;
  private readonly member: Member;
  private readonly options: WatchOptions;
  private readonly encoder: WatchResponseEncoder;
  private readonly call: ServerCall;
  private readonly watchers = new Map<WatchId, StreamWatcher>();
  private nextId = 0;
  private progressTimerOn = false;
  private isOpen = true;

  constructor(member: Member, options: WatchOptions, encoder: WatchResponseEncoder, call: ServerCall) {
    this.member = member;
    this.options = options;
    this.encoder = encoder;
    this.call = call;
    options.counters.streams++;
    call.onEnd = () => this.close();
    call.onDrain = () => {
      this.isBlocked = false;
      this.member.parts.hub.resume(this);
      this.member.wake();
    };
  }

  private close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.options.counters.streams--;
    for (const watcher of this.watchers.values()) this.member.parts.hub.remove(watcher);
    this.watchers.clear();
  }

  request(request: Message<typeof WatchRequest>): void {
    if (request.progressRequest !== undefined) this.progressAll();
    else if (request.cancelRequest !== undefined) this.cancel(watchIdOf(request.cancelRequest.watchId));
    else if (request.createRequest !== undefined) this.create(request.createRequest);
  }

  private get revision(): number {
    return this.member.parts.store.currentRevision;
  }

  private create(request: Message<typeof WatchCreateRequest>): void {
    const key = request.key.length === 0 ? FROM_FIRST_KEY : request.key.toString('latin1');
    const isToLast = request.rangeEnd.length === 1 && request.rangeEnd[0] === 0;
    const end = isToLast ? null : request.rangeEnd.toString('latin1');
    const { startRevision } = request;
    if (startRevision < 0) {
      this.refuse(etcdErrors.compacted.message);
      return;
    }
    if (end !== null && end !== '' && key >= end) {
      this.refuse('mvcc: watcher range is empty');
      return;
    }
    const asked = watchIdOf(request.watchId);
    if (asked !== 0 && this.watchers.has(asked)) {
      this.refuse('mvcc: duplicate watch ID provided on the WatchStream');
      return;
    }
    const id = asked === 0 ? this.chooseId() : asked;
    this.sendControl(id, true, false, 0, '');
    // A client that does not read its answers may have been cut off by this one.
    if (!this.isOpen) return;
    const options = { id, key, end, startRevision, filter: filterOf(request) };
    const watcher = new StreamWatcher(this, options, request.fragment, request.progressNotify);
    this.watchers.set(id, watcher);
    this.member.parts.hub.add(watcher);
    if (request.progressNotify) this.startProgressTimer();
    if (watcher.state === WatcherState.unsynced) this.member.wake();
  }

  private chooseId(): number {
    while (this.watchers.has(this.nextId)) this.nextId++;
    return this.nextId++;
  }

  private refuse(reason: string): void {
    this.sendControl(noWatchId, true, true, 0, reason);
  }

  private cancel(id: WatchId): void {
    const watcher = this.watchers.get(id);
    if (watcher === undefined) return;
    this.member.parts.hub.flush();
    this.watchers.delete(id);
    this.member.parts.hub.remove(watcher);
    this.sendControl(id, false, true, 0, '');
  }

  private sendControl(id: WatchId, created: boolean, canceled: boolean, compactRevision: number, reason: string): void {
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
    if (this.isBlocked || this.watchers.size === 0) return;
    for (const watcher of this.watchers.values()) if (!hub.isSynced(watcher)) return;
    this.sendControl(noWatchId, false, false, 0, '');
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
    for (const watcher of this.watchers.values()) {
      if (!watcher.progressNotify) continue;
      wantsTimer = true;
      if (watcher.isQuiet && !this.isBlocked && hub.isSynced(watcher)) {
        this.sendControl(watcher.id, false, false, 0, '');
      }
      watcher.isQuiet = true;
    }
    this.options.metrics.sendLoopProgress.observe((this.member.parts.nowMs() - startMs) / 1000);
    if (wantsTimer) this.startProgressTimer();
  }

  // --- WatchSink ---

  sendEvents(watcher: Watcher, batch: EventBatch): void {
    failpoint('beforeSendWatchResponse');
    const target = watcher as StreamWatcher;
    target.isQuiet = false;
    const { body } = batch;
    if (target.fragment && batch.byteCount >= this.options.fragmentBytes) this.sendFragments(target, batch);
    else if (!batch.isCopied) this.sendPart(target, batch, batchHeadBytes, body.length, false);
    else if (!this.call.send(body.bytes, this.encoder.placeHead(batch, target.id), body.length)) this.isBlocked = true;
  }

  /** The events in batch.body.bytes[start, end), by reference where the batch allows it. */
  private sendPart(watcher: StreamWatcher, batch: EventBatch, start: number, end: number, hasMore: boolean): void {
    const head = this.encoder.eventsHead(batch.revision, watcher.id, hasMore);
    const events = batch.body.bytes.subarray(start, end);
    if (!this.call.sendParts([head, batch.isCopied ? Buffer.from(events) : events])) this.isBlocked = true;
  }

  /** Splits between events, each part below the bound unless one event alone is above it. */
  private sendFragments(watcher: StreamWatcher, batch: EventBatch): void {
    const { body } = batch;
    const reader = new Reader();
    reader.reset(body.bytes, batchHeadBytes, body.length);
    let partStart = batchHeadBytes;
    let previousEnd = partStart;
    while (reader.readTag()) {
      reader.readBytes();
      if (reader.bytesEnd - partStart >= this.options.fragmentBytes && previousEnd > partStart) {
        this.sendPart(watcher, batch, partStart, previousEnd, true);
        partStart = previousEnd;
      }
      previousEnd = reader.bytesEnd;
    }
    this.sendPart(watcher, batch, partStart, body.length, false);
  }

  sendCompacted(watcher: Watcher, compactRevision: number): void {
    // Its id stays taken until the client cancels it, and until then no progress is told on this stream, as in etcd.
    // etcd sends this one answer without a revision in its header.
    const bytes = this.encoder.control(0, watcher.id, false, true, compactRevision, '');
    if (!this.call.send(bytes, 0, bytes.length)) this.isBlocked = true;
  }
}

function watchIdOf(id: bigint): WatchId {
  return id >= 0n && id <= Number.MAX_SAFE_INTEGER ? Number(id) : id;
}

function filterOf(request: Message<typeof WatchCreateRequest>): number {
  let filter: number = request.prevKv ? EventFilter.prevKv : EventFilter.none;
  if (request.filters.includes(FilterType.noPut)) filter |= EventFilter.noPut;
  if (request.filters.includes(FilterType.noDelete)) filter |= EventFilter.noDelete;
  return filter;
}
