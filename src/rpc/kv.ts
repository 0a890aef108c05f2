// etcdserverpb.KV: Range, RangeStream (range-stream.ts), Put, DeleteRange, Txn, Compact. Checks, then proposes or reads.
// Hot: Put and Range make one waiter object each, or none; requests are parsed in place.

import type { Applier } from '../apply/applier.ts';
import { putCost, txnCost } from '../apply/quota.ts';
import { isReadOnly, isSerializable } from '../apply/txn.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import { applyBodyBytesKept } from '../limits.ts';
import { CompactionRequest, HeaderOnlyResponse } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { decode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { Reader } from '../proto/wire.ts';
import { type Member, readOnlyTxnKind } from '../server/member.ts';
import type { Waiter } from '../server/pending.ts';
import type { ReadWaiter } from '../server/read-queue.ts';
import { rangeText, txnText } from '../server/request-text.ts';
import { ApplyWaiter, failMalformed, failWith, respondWithBody, respondWithMessage } from './answer.ts';
import { checkDelete, checkOverlaps, checkPut, checkRange, checkTxn } from './kv-check.ts';
import { RangeStreamHandler } from './range-stream.ts';

const SERVICE = 'etcdserverpb.KV';

export interface KvOptions {
  readonly txnOpsMax: number;
  /** --max-request-bytes: RangeStream's aim for a chunk. */
  readonly requestBytesMax: number;
  /** Physical compaction is answered when the deletes are done. */
  readonly afterCompaction: (revision: number, done: () => void) => void;
}

export function registerKv(router: Router, member: Member, options: KvOptions): void {
  const kv = new KvService(member, options);
  router.unary(SERVICE, 'Range', (call, message, start, end) => kv.range(call, message, start, end));
  router.unary(SERVICE, 'Put', (call, message, start, end) => kv.put(call, message, start, end));
  router.unary(SERVICE, 'DeleteRange', (call, message, start, end) => kv.deleteRange(call, message, start, end));
  router.unary(SERVICE, 'Txn', (call, message, start, end) => kv.txn(call, message, start, end));
  router.unary(SERVICE, 'Compact', (call, message, start, end) => kv.compact(call, message, start, end));
  router.stream(SERVICE, 'RangeStream', 'server', new RangeStreamHandler(member, options.requestBytesMax));
}

class KvService {
  private readonly member: Member;
  private readonly options: KvOptions;
  private readonly rangeRequest = new RangeRequest();
  private readonly putRequest = new PutRequest();
  private readonly deleteRequest = new DeleteRangeRequest();
  private readonly body = new ByteWriter();

  constructor(member: Member, options: KvOptions) {
    this.member = member;
    this.options = options;
  }

  range(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = this.rangeRequest;
    if (!request.parse(message, start, end)) {
      failMalformed(call);
      return;
    }
    const error = checkRange(request);
    if (error !== null) failWith(call, error);
    else if (request.serializable || this.member.canReadNow) this.answerRange(call, request);
    else this.member.read(new RangeWaiter(this, call, Buffer.from(message.subarray(start, end))));
  }

  /** The request's bytes as kept by a waiter. */
  rangeFrom(call: ServerCall, message: Buffer): void {
    this.rangeRequest.parse(message, 0, message.length);
    this.answerRange(call, this.rangeRequest);
  }

  private answerRange(call: ServerCall, request: RangeRequest): void {
    const { store, header, counters, nowMs, warningApplyMs } = this.member.parts;
    const startMs = nowMs();
    this.body.release(applyBodyBytesKept);
    const error = store.range(request, this.body);
    const tookMs = nowMs() - startMs;
    if (error !== null) failWith(call, error);
    else respondWithBody(call, header, store.rangeRevision, this.body);
    counters.observeRange(error === null, tookMs / 1000);
    counters.observeRequest(RequestField.range, error === null, tookMs / 1000);
    if (tookMs > warningApplyMs) this.warnSlowRange(tookMs, request);
  }

  private warnSlowRange(tookMs: number, request: RangeRequest): void {
    const response = `range_response_count:${countKeyValues(this.body)} size:${this.body.length}`;
    this.member.log.slowRead('read-only range ', rangeText(request), response, tookMs);
  }

  put(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = this.putRequest;
    if (!request.parse(message, start, end)) {
      failMalformed(call);
      return;
    }
    if (this.refusesForQuota(call, putCost(request))) return;
    const error = checkPut(request);
    if (error !== null) failWith(call, error);
    else this.propose(call, RequestField.put, message, start, end);
  }

  deleteRange(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = this.deleteRequest;
    if (!request.parse(message, start, end)) {
      failMalformed(call);
      return;
    }
    const error = checkDelete(request);
    if (error !== null) failWith(call, error);
    else this.propose(call, RequestField.deleteRange, message, start, end);
  }

  txn(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = new TxnRequest();
    if (!request.parse(message, start, end)) {
      failMalformed(call);
      return;
    }
    if (this.refusesForQuota(call, txnCost(request))) return;
    const error =
      checkTxn(request, this.options.txnOpsMax) ?? checkOverlaps(request.success) ?? checkOverlaps(request.failure);
    if (error !== null) failWith(call, error);
    else if (!isReadOnly(request)) this.propose(call, RequestField.txn, message, start, end);
    else if (isSerializable(request) || this.member.canReadNow) this.answerTxn(call, request);
    else this.member.read(new TxnWaiter(this, call, Buffer.from(message.subarray(start, end))));
  }

  txnFrom(call: ServerCall, message: Buffer): void {
    const request = new TxnRequest();
    request.parse(message, 0, message.length);
    this.answerTxn(call, request);
  }

  private answerTxn(call: ServerCall, request: TxnRequest): void {
    const { applier, store, header, counters, nowMs, warningApplyMs } = this.member.parts;
    const startMs = nowMs();
    this.body.release(applyBodyBytesKept);
    const error = applier.readTxn(request, this.body);
    const tookMs = nowMs() - startMs;
    counters.observeRequest(readOnlyTxnKind, error === null, tookMs / 1000);
    if (tookMs > warningApplyMs) {
      this.member.log.slowRead('read-only txn ', txnText(request), `size:${this.body.length}`, tookMs);
    }
    if (error !== null) failWith(call, error);
    else respondWithBody(call, header, store.currentRevision, this.body);
  }

  private propose(call: ServerCall, field: RequestField, message: Buffer, start: number, end: number): void {
    const error = this.member.propose(field, message, start, end, new ApplyWaiter(call, this.member.parts.header));
    if (error !== null) failWith(call, error);
  }

  private refusesForQuota(call: ServerCall, costBytes: number): boolean {
    if (!this.member.exceedsQuota(costBytes)) return false;
    this.member.raiseNoSpace();
    failWith(call, etcdErrors.noSpace);
    return true;
  }

  compact(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = decode(CompactionRequest, message, start, end);
    if (request === undefined) {
      failMalformed(call);
      return;
    }
    const waiter = new CompactWaiter(this.member, call, request.physical ? request.revision : 0, this.options);
    const error = this.member.propose(RequestField.compaction, message, start, end, waiter);
    if (error !== null) failWith(call, error);
  }
}

/** How many KeyValues a RangeResponse's body holds: only a line about a slow request asks. */
function countKeyValues(body: ByteWriter): number {
  const reader = new Reader();
  reader.reset(body.bytes, 0, body.length);
  let count = 0;
  while (reader.readTag()) {
    if (reader.fieldNumber === 2) count++;
    reader.skip();
  }
  return count;
}

class RangeWaiter implements ReadWaiter {
  private readonly service: KvService;
  private readonly call: ServerCall;
  private readonly message: Buffer;
  constructor(service: KvService, call: ServerCall, message: Buffer) {
    this.service = service;
    this.call = call;
    this.message = message;
  }
  ready(): void {
    if (!this.call.ended) this.service.rangeFrom(this.call, this.message);
  }
  failed(error: EtcdError): void {
    failWith(this.call, error);
  }
}

class TxnWaiter implements ReadWaiter {
  private readonly service: KvService;
  private readonly call: ServerCall;
  private readonly message: Buffer;
  constructor(service: KvService, call: ServerCall, message: Buffer) {
    this.service = service;
    this.call = call;
    this.message = message;
  }
  ready(): void {
    if (!this.call.ended) this.service.txnFrom(this.call, this.message);
  }
  failed(error: EtcdError): void {
    failWith(this.call, error);
  }
}

class CompactWaiter implements Waiter {
  private readonly member: Member;
  private readonly call: ServerCall;
  /** 0 unless the deletes are to be waited for. */
  private readonly physicalRevision: number;
  private readonly options: KvOptions;
  constructor(member: Member, call: ServerCall, physicalRevision: number, options: KvOptions) {
    this.member = member;
    this.call = call;
    this.physicalRevision = physicalRevision;
    this.options = options;
  }

  applied(applier: Applier): void {
    const { error } = applier;
    if (error !== null) {
      // A physical compaction that was compacted already still waits for the deletes that run, as in etcd.
      if (this.physicalRevision > 0) {
        this.options.afterCompaction(this.physicalRevision, () => failWith(this.call, error));
      } else failWith(this.call, error);
    } else if (this.physicalRevision > 0) this.options.afterCompaction(this.physicalRevision, () => this.answer());
    else this.answer();
  }

  private answer(): void {
    const { header, store } = this.member.parts;
    respondWithMessage(this.call, HeaderOnlyResponse, { header: header.message(store.currentRevision) });
  }

  failed(error: EtcdError): void {
    failWith(this.call, error);
  }
}
