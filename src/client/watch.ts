// Watches over one stream. A watch goes on over a lost connection from the first revision that it has not delivered yet, so
// its consumer sees every event once and in order, until it is canceled: by its consumer, by the server (compacted, no
// permission, …) or because the stream cannot be had. The last batch of a canceled watch says why (`error`). Follows
// clientv3's watcher.
//
//   creating ──created──> running ──canceled by the server, or the stream ends for good──> ended
//      ^                     │
//      └──the stream broke───┘      creates are answered in order: one at a time is under way

import { assert } from '../base/assert.ts';
import { clientStreamBackoffMsMax, clientWatchQueueMax } from '../limits.ts';
import type { WatchRequest } from '../proto/etcdserverpb.ts';
import type { WatchResponse } from '../proto/kv-schema.ts';
import type { Message, MessageInit } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { DuplexStream, EtcdClient } from './client.ts';
import { rpc } from './rpc.ts';
import { canceledError, EtcdClientError, StatusCode } from './status.ts';

export interface WatchOptions {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
  /** 0: from now on. */
  readonly startRevision?: number;
  readonly progressNotify?: boolean;
  readonly prevKv?: boolean;
  /** FilterType: events that the server leaves out. */
  readonly filters?: readonly number[];
}

/** A response to a watch; without events it is a progress notification, or the end. */
export interface WatchBatch {
  readonly response: Message<typeof WatchResponse>;
  /** Set on the last batch of a watch. */
  readonly error: EtcdClientError | null;
}

const noHeader = { clusterId: 0n, memberId: 0n, revision: 0, raftTerm: 0 };
/** The watch id of progress that concerns all watches of the stream. */
const everyWatch = -1;

export class Watch implements AsyncIterable<WatchBatch> {
  readonly options: WatchOptions;
  /** The first revision that has not been delivered; 0 until the server has answered a watch "from now on". */
  nextRevision: number;
  id: number | null = null;
  #isEnded = false;
  readonly #queue: WatchBatch[] = [];
  #wake: (() => void) | null = null;
  readonly #onDrain: () => void;
  readonly #onCancel: (watch: Watch) => void;

  constructor(options: WatchOptions, onDrain: () => void, onCancel: (watch: Watch) => void) {
    this.options = options;
    this.nextRevision = options.startRevision ?? 0;
    this.#onDrain = onDrain;
    this.#onCancel = onCancel;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  get isFull(): boolean {
    return this.#queue.length >= clientWatchQueueMax;
  }

  deliver(batch: WatchBatch): void {
    assert(!this.#isEnded, 'a watch goes on after its end');
    const { header, events } = batch.response;
    if (batch.error !== null) this.#isEnded = true;
    else if (events.length > 0) this.nextRevision = (events.at(-1)!.kv?.modRevision ?? 0) + 1;
    else this.nextRevision = (header?.revision ?? 0) + 1;
    this.#queue.push(batch);
    this.#wake?.();
  }

  /** Ends it, without a last batch. Leaving the loop over it does the same. */
  cancel(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#wake?.();
    this.#onCancel(this);
  }

  /** Ends after the batch with an error. */
  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void, undefined> {
    try {
      yield* this.#batches();
    } finally {
      this.cancel();
    }
  }

  async *#batches(): AsyncGenerator<WatchBatch, void, undefined> {
    for (;;) {
      const batch = this.#queue.shift();
      if (batch === undefined) {
        if (this.#isEnded) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = null;
        continue;
      }
      if (this.#queue.length === clientWatchQueueMax >> 1) this.#onDrain();
      yield batch;
      if (batch.error !== null) return;
    }
  }
}

export class WatchStream {
  readonly #client: EtcdClient;
  readonly #requireLeader: boolean;
  /** Waiting for "created", the first of them asked for; a canceled one leaves when its turn comes. */
  #creating: Watch[] = [];
  readonly #running = new Map<number, Watch>();
  #duplex: DuplexStream | null = null;
  #isConnecting = false;
  #isClosed = false;

  constructor(client: EtcdClient, options: { readonly requireLeader?: boolean } = {}) {
    this.#client = client;
    this.#requireLeader = options.requireLeader ?? true;
  }

  watch(options: WatchOptions): Watch {
    assert(!this.#isClosed, 'a watch on a closed stream');
    const watch = new Watch(
      options,
      () => this.#duplex?.stream.resume(),
      (left) => this.#leave(left),
    );
    this.#creating.push(watch);
    if (this.#duplex === null) this.#connect();
    else if (this.#creating.length === 1) this.#sendCreate();
    return watch;
  }

  /** Asks for the revision that every watch of the stream has reached; the answer comes as a batch without events. */
  requestProgress(): void {
    this.#send({ progressRequest: {} });
  }

  /** Ends all watches. */
  close(): void {
    this.#isClosed = true;
    this.#endAll(canceledError());
    this.#duplex?.stream.cancel();
    this.#duplex = null;
  }

  #connect(): void {
    if (this.#isConnecting) return;
    this.#isConnecting = true;
    this.#client.duplex(rpc.watch, { requireLeader: this.#requireLeader }).then(
      (duplex) => {
        this.#isConnecting = false;
        if (this.#isClosed) duplex.stream.cancel();
        else this.#open(duplex);
      },
      (error: unknown) => {
        this.#isConnecting = false;
        this.#endAll(error instanceof EtcdClientError ? error : new EtcdClientError(StatusCode.unknown, String(error)));
      },
    );
  }

  #open(duplex: DuplexStream): void {
    this.#duplex = duplex;
    duplex.stream.on('data', (bytes: Buffer) => {
      if (this.#duplex === duplex) this.#receive(bytes);
    });
    duplex.stream.on('error', (error) => {
      if (this.#duplex === duplex) this.#lost(duplex.failure(error));
    });
    duplex.stream.on('end', () => {
      if (this.#duplex === duplex)
        this.#lost(new EtcdClientError(StatusCode.unavailable, 'the watch stream has ended'));
    });
    if (this.#creating.length > 0) this.#sendCreate();
  }

  #send(request: MessageInit<typeof WatchRequest>): void {
    this.#duplex?.stream.write(this.#client.encode(rpc.watch, request));
  }

  #sendCreate(): void {
    const { options, nextRevision } = this.#creating[0]!;
    this.#send({
      createRequest: {
        key: options.key,
        rangeEnd: options.rangeEnd,
        startRevision: nextRevision,
        progressNotify: options.progressNotify,
        filters: options.filters,
        prevKv: options.prevKv,
      },
    });
  }

  #receive(bytes: Buffer): void {
    const response = this.#client.decode(rpc.watch, bytes);
    if (response.created) {
      this.#created(response);
      return;
    }
    const isProgress = response.events.length === 0 && !response.canceled && response.compactRevision === 0;
    if (isProgress && response.watchId === everyWatch) {
      for (const watch of this.#running.values()) this.#deliver(watch, { response, error: null });
      return;
    }
    const watch = this.#running.get(response.watchId);
    if (watch === undefined) return;
    const error = errorOf(response);
    if (error !== null) this.#running.delete(response.watchId);
    // A compacted watch stays on the server's list, where it keeps progress from being told, until it is canceled.
    if (response.compactRevision !== 0) this.#sendCancel(response.watchId);
    this.#deliver(watch, { response, error });
  }

  #sendCancel(watchId: number): void {
    this.#send({ cancelRequest: { watchId: BigInt(watchId) } });
  }

  /** Its consumer wants no more of it. One that is being created leaves when its answer comes. */
  #leave(watch: Watch): void {
    if (watch.id === null) return;
    this.#running.delete(watch.id);
    this.#sendCancel(watch.id);
  }

  #created(response: Message<typeof WatchResponse>): void {
    const watch = this.#creating.shift();
    assert(watch !== undefined, 'a watch was created that nobody asked for');
    if (watch.isEnded) {
      if (!response.canceled) this.#sendCancel(response.watchId);
    } else if (response.canceled) {
      const reason = response.cancelReason;
      watch.deliver({ response, error: new EtcdClientError(StatusCode.failedPrecondition, reason, reason) });
    } else {
      watch.id = response.watchId;
      // A watch from now on resumes here if the connection is lost before its first event.
      if (watch.nextRevision === 0) watch.nextRevision = (response.header?.revision ?? 0) + 1;
      this.#running.set(response.watchId, watch);
    }
    this.#creating = this.#creating.filter((waiting) => !waiting.isEnded);
    if (this.#creating.length > 0) this.#sendCreate();
  }

  #deliver(watch: Watch, batch: WatchBatch): void {
    watch.deliver(batch);
    if (watch.isFull) this.#duplex?.stream.pause();
  }

  /** The stream broke: open another and go on, unless the failure would meet us there too. */
  #lost(error: EtcdClientError): void {
    this.#duplex = null;
    for (const watch of this.#running.values()) watch.id = null;
    this.#creating = [...this.#running.values(), ...this.#creating].filter((watch) => !watch.isEnded);
    this.#running.clear();
    const mayPass = error.code === StatusCode.unavailable || error.code === StatusCode.internal;
    if (!mayPass || error.is(etcdErrors.noLeader) || this.#client.isClosed) {
      this.#endAll(error);
      return;
    }
    if (this.#creating.length > 0) setTimeout(() => this.#connect(), clientStreamBackoffMsMax * 0.2 * Math.random());
  }

  #endAll(error: EtcdClientError): void {
    const response: Message<typeof WatchResponse> = {
      header: noHeader,
      watchId: 0,
      created: false,
      canceled: true,
      compactRevision: 0,
      cancelReason: '',
      fragment: false,
      events: [],
    };
    const watches = [...this.#running.values(), ...this.#creating];
    this.#running.clear();
    this.#creating = [];
    for (const watch of watches) if (!watch.isEnded) watch.deliver({ response, error });
  }
}

/** Why a response ends its watch, or null. */
function errorOf(response: Message<typeof WatchResponse>): EtcdClientError | null {
  if (response.compactRevision !== 0)
    return new EtcdClientError(etcdErrors.compacted.code, etcdErrors.compacted.message);
  if (!response.canceled) return null;
  if (response.cancelReason !== '') return new EtcdClientError(StatusCode.failedPrecondition, response.cancelReason);
  return new EtcdClientError(etcdErrors.futureRev.code, etcdErrors.futureRev.message);
}
