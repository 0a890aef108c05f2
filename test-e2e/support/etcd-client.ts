// A thin etcd client for tests: @grpc/grpc-js as the transport, the schema codec for the messages, errors as values. Bytes can be
// sent as they are, so that tests can send what no client would. Not the product's client (src/client).

import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import {
  CompactionRequest,
  HashKVRequest,
  HashKVResponse,
  HeaderOnlyResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseLeasesResponse,
  LeaseRevokeRequest,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  ResponseHeader,
  StatusResponse,
  type WatchCreateRequest,
  WatchRequest,
} from '../../src/proto/etcdserverpb.ts';
import { decode, encode, type Message, type MessageInit, type Schema } from '../../src/proto/message.ts';
import { Event } from '../../src/proto/mvccpb.ts';
import {
  DeleteAnswer,
  DeleteMessage,
  decodeTxnAnswer,
  encodeTxn,
  PutAnswer,
  PutMessage,
  RangeAnswer,
  RangeMessage,
  type TxnAnswer,
  type TxnInit,
} from '../../src/testing/kv-messages.ts';

export const WatchResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  watchId: { no: 2, kind: 'int64' },
  created: { no: 3, kind: 'bool' },
  canceled: { no: 4, kind: 'bool' },
  compactRevision: { no: 5, kind: 'int' },
  cancelReason: { no: 6, kind: 'string' },
  fragment: { no: 7, kind: 'bool' },
  events: { no: 11, kind: Event as typeof Event, repeated: true },
} as const;
export type WatchAnswer = Message<typeof WatchResponse>;

/** An answer, or the status that came instead. */
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly code: number; readonly message: string };

const UNAVAILABLE = 14;
const identity = (bytes: Buffer): Buffer => bytes;
/** Beyond etcd's own 7 s request timeout: whoever hits it has found a hang. */
const defaultDeadlineMs = 15_000;

export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly deadlineMs?: number;
}

export interface Stream {
  /** Resolves with the first message, or with null when none came. */
  readonly first: Promise<Buffer | null>;
  /** Resolves with the status when the stream has ended. */
  readonly ended: Promise<{ readonly code: number; readonly message: string }>;
  /** Ends this side of it. */
  end(): void;
  cancel(): void;
}

export interface WatchStream {
  send(request: MessageInit<typeof WatchRequest>): void;
  sendBytes(bytes: Buffer): void;
  cancel(): void;
  /** Resolves with the status when the stream has ended. */
  readonly ended: Promise<{ readonly code: number; readonly message: string }>;
}

export class EtcdClient {
  private readonly client: Client;

  constructor(address: string) {
    this.client = new Client(address, credentials.createInsecure(), {
      // A connection of its own, and no call that is sent twice behind the test's back.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    });
  }

  close(): void {
    this.client.close();
  }

  /** A unary call of raw bytes. */
  call(path: string, request: Buffer, options: CallOptions = {}): Promise<Result<Buffer>> {
    return new Promise((resolve) => {
      const deadline = Date.now() + (options.deadlineMs ?? defaultDeadlineMs);
      const done = (error: ServiceError | null, value?: Buffer): void => {
        if (error !== null) resolve({ ok: false, code: error.code, message: error.details });
        else resolve({ ok: true, value: value! });
      };
      this.client.makeUnaryRequest(path, identity, identity, request, metadataOf(options), { deadline }, done);
    });
  }

  /** A server stream's messages, or the first error. */
  collect(path: string, request: Buffer, options: CallOptions = {}): Promise<Result<Buffer[]>> {
    return new Promise((resolve) => {
      const deadline = Date.now() + (options.deadlineMs ?? defaultDeadlineMs);
      const call = this.client.makeServerStreamRequest(path, identity, identity, request, metadataOf(options), {
        deadline,
      });
      const messages: Buffer[] = [];
      call.on('data', (message: Buffer) => messages.push(message));
      call.on('error', (error: ServiceError) => resolve({ ok: false, code: error.code, message: error.details }));
      call.on('end', () => resolve({ ok: true, value: messages }));
    });
  }

  async ask<Q extends Schema, A extends Schema>(
    path: string,
    querySchema: Q,
    query: MessageInit<Q>,
    answerSchema: A,
    options?: CallOptions,
  ): Promise<Result<Message<A>>> {
    return parsed(await this.call(path, encode(querySchema, query), options), (bytes) => decode(answerSchema, bytes));
  }

  range(
    request: MessageInit<typeof RangeMessage>,
    options?: CallOptions,
  ): Promise<Result<Message<typeof RangeAnswer>>> {
    return this.ask('/etcdserverpb.KV/Range', RangeMessage, request, RangeAnswer, options);
  }

  put(request: MessageInit<typeof PutMessage>, options?: CallOptions): Promise<Result<Message<typeof PutAnswer>>> {
    return this.ask('/etcdserverpb.KV/Put', PutMessage, request, PutAnswer, options);
  }

  deleteRange(request: MessageInit<typeof DeleteMessage>): Promise<Result<Message<typeof DeleteAnswer>>> {
    return this.ask('/etcdserverpb.KV/DeleteRange', DeleteMessage, request, DeleteAnswer);
  }

  async txn(request: TxnInit): Promise<Result<TxnAnswer>> {
    return parsed(await this.call('/etcdserverpb.KV/Txn', encodeTxn(request)), decodeTxnAnswer);
  }

  compact(revision: number, physical = false): Promise<Result<Message<typeof HeaderOnlyResponse>>> {
    return this.ask('/etcdserverpb.KV/Compact', CompactionRequest, { revision, physical }, HeaderOnlyResponse);
  }

  hashKv(revision: number): Promise<Result<Message<typeof HashKVResponse>>> {
    return this.ask('/etcdserverpb.Maintenance/HashKV', HashKVRequest, { revision }, HashKVResponse);
  }

  status(): Promise<Result<Message<typeof StatusResponse>>> {
    return this.ask('/etcdserverpb.Maintenance/Status', {}, {}, StatusResponse);
  }

  defragment(): Promise<Result<Buffer>> {
    return this.call('/etcdserverpb.Maintenance/Defragment', Buffer.alloc(0));
  }

  grant(id: bigint, ttlSeconds: number): Promise<Result<Message<typeof LeaseGrantResponse>>> {
    const request = { id, ttl: BigInt(ttlSeconds) };
    return this.ask('/etcdserverpb.Lease/LeaseGrant', LeaseGrantRequest, request, LeaseGrantResponse);
  }

  revoke(id: bigint): Promise<Result<Message<typeof HeaderOnlyResponse>>> {
    return this.ask('/etcdserverpb.Lease/LeaseRevoke', LeaseRevokeRequest, { id }, HeaderOnlyResponse);
  }

  timeToLive(id: bigint): Promise<Result<Message<typeof LeaseTimeToLiveResponse>>> {
    const request = { id, keys: true };
    return this.ask('/etcdserverpb.Lease/LeaseTimeToLive', LeaseTimeToLiveRequest, request, LeaseTimeToLiveResponse);
  }

  leases(): Promise<Result<Message<typeof LeaseLeasesResponse>>> {
    return this.ask('/etcdserverpb.Lease/LeaseLeases', {}, {}, LeaseLeasesResponse);
  }

  /** An open Watch call; `receive` sees each response. */
  watch(receive: (answer: WatchAnswer) => void): WatchStream {
    const call = this.client.makeBidiStreamRequest('/etcdserverpb.Watch/Watch', identity, identity, new Metadata());
    call.on('data', (bytes: Buffer) => {
      const answer = decode(WatchResponse, bytes);
      if (answer === undefined) throw new Error('a malformed WatchResponse');
      receive(answer);
    });
    const ended = new Promise<{ code: number; message: string }>((resolve) => {
      // The status comes with either; an error without a listener would end the test.
      call.on('error', (error: ServiceError) => resolve({ code: error.code, message: error.details }));
      call.on('status', (status: { code: number; details: string }) => {
        resolve({ code: status.code, message: status.details });
      });
    });
    return {
      send: (request) => void call.write(encode(WatchRequest, request)),
      sendBytes: (bytes) => void call.write(bytes),
      cancel: () => call.cancel(),
      ended,
    };
  }

  /** A call of streams in both directions that stays open after its one request. */
  open(path: string, request: Buffer, options: CallOptions = {}): Stream {
    const deadline = options.deadlineMs === undefined ? Infinity : Date.now() + options.deadlineMs;
    const call = this.client.makeBidiStreamRequest(path, identity, identity, metadataOf(options), { deadline });
    const first = new Promise<Buffer | null>((resolve) => {
      call.once('data', resolve);
      call.once('status', () => resolve(null));
      call.once('error', () => resolve(null));
    });
    const ended = new Promise<{ code: number; message: string }>((resolve) => {
      call.on('error', (error: ServiceError) => resolve({ code: error.code, message: error.details }));
      call.on('status', ({ code, details }: { code: number; details: string }) => resolve({ code, message: details }));
    });
    call.write(request);
    return { first, ended, end: () => call.end(), cancel: () => call.cancel() };
  }

  /** All events from `startRevision` to `lastRevision`, both included, of every key. */
  history(startRevision: number, lastRevision: number): Promise<Message<typeof Event>[]> {
    return new Promise((resolve, reject) => {
      const events: Message<typeof Event>[] = [];
      const timer = setTimeout(() => {
        stream.cancel();
        reject(new Error(`history ${startRevision}-${lastRevision}: only ${events.length} events in 20 s`));
      }, 20_000);
      const finish = (then: () => void): void => {
        clearTimeout(timer);
        stream.cancel();
        then();
      };
      const stream = this.watch((answer) => {
        if (answer.canceled) {
          finish(() =>
            reject(new Error(`history from ${startRevision}: ${answer.cancelReason} ${answer.compactRevision}`)),
          );
          return;
        }
        events.push(...answer.events);
        if ((events.at(-1)?.kv?.modRevision ?? 0) >= lastRevision) finish(() => resolve(events));
      });
      void stream.ended.then(({ message }) =>
        finish(() => reject(new Error(`history from ${startRevision}: ${message}`))),
      );
      stream.send({ createRequest: { ...everything, startRevision } });
    });
  }
}

/** Every key. */
export const everything: MessageInit<typeof WatchCreateRequest> = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };

export function isUnavailable(result: { readonly ok: boolean; readonly code?: number }): boolean {
  return !result.ok && result.code === UNAVAILABLE;
}

/** The value; throws when there is none. */
export function expectOk<T>(result: Result<T>): T {
  if (!result.ok) throw new Error(`code ${result.code}: ${result.message}`);
  return result.value;
}

function metadataOf(options: CallOptions): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
  return metadata;
}

function parsed<T>(result: Result<Buffer>, parse: (bytes: Buffer) => T | undefined): Result<T> {
  if (!result.ok) return result;
  const value = parse(result.value);
  if (value === undefined) throw new Error(`a malformed response: ${result.value.toString('hex').slice(0, 200)}`);
  return { ok: true, value };
}
