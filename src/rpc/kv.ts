// etcdserverpb.KV: Range, RangeStream (range-stream.ts), Put, DeleteRange, Txn, Compact. Checks, then proposes or reads.
// Hot: Put and Range make one waiter object each, or none; requests are parsed in place.

import type { Applier } from '../apply/applier.ts';
import { putCost, txnCost } from '../apply/quota.ts';
import { isOfKeys, isPaged, isReadOnly, isSerializable } from '../apply/txn.ts';
import { checkOverlaps } from '../apply/txn-overlaps.ts';
import { TxnRead } from '../apply/txn-read.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import { applyBodyBytesKept } from '../limits.ts';
import { RangeRead } from '../mvcc/range-read.ts';
import { CompactionRequest, HeaderOnlyResponse } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { decode } from '../proto/message.ts';
import { type EtcdError, etcdErrors, messageTooLarge } from '../proto/rpctypes.ts';
import { type Member, readOnlyTxnKind } from '../server/member.ts';
import type { Waiter } from '../server/pending.ts';
import type { ReadWaiter } from '../server/read-queue.ts';
import { rangeText, txnText } from '../server/request-text.ts';
import {
  rangeResponseText,
  sizeWithRevision,
  txnCountsText,
  txnRangeCounts,
  txnResponseText,
} from '../server/response-text.ts';
import { ApplyWaiter, failMalformed, failWith, respondWithBody, respondWithMessage } from './answer.ts';
import { type BigReads, ReadSize } from './big-reads.ts';
import { checkDelete, checkPut, checkRange, checkTxn } from './kv-check.ts';
import { RangeStreamHandler } from './range-stream.ts';

const SERVICE = 'etcdserverpb.KV';

export interface KvOptions {
  readonly txnOpsMax: number;
  /** --max-request-bytes: RangeStream's aim for a chunk. */
  readonly requestBytesMax: number;
  /** Physical compaction is answered when the deletes are done. */
  readonly afterCompaction: (revision: number, done: () => void) => void;
  /** Lease's too: what it bounds is the server's. */
  readonly bigReads: BigReads;
}

export function registerKv(router: Router, member: Member, options: KvOptions): void {
  const kv = new KvService(member, options);
  router.unary(SERVICE, 'Range', (call, message, start, end) => kv.range(call, message, start, end));
  router.unary(SERVICE, 'Put', (call, message, start, end) => kv.put(call, message, start, end));
  router.unary(SERVICE, 'DeleteRange', (call, message, start, end) => kv.deleteRange(call, message, start, end));
  router.unary(SERVICE, 'Txn', (call, message, start, end) => kv.txn(call, message, start, end));
  router.unary(SERVICE, 'Compact', (call, message, start, end) => kv.compact(call, message, start, end));
  router.stream(
    SERVICE,
    'RangeStream',
    'server',
    new RangeStreamHandler(member, options.requestBytesMax, options.bigReads),
  );
}

class KvService {
  private readonly member: Member;
  private readonly options: KvOptions;
  private readonly rangeRequest = new RangeRequest();
  private readonly putRequest = new PutRequest();
  private readonly deleteRequest = new DeleteRangeRequest();
  private readonly bigReads: BigReads;
  private readonly body: ByteWriter;
  private readonly txnBody: ByteWriter;

  constructor(member: Member, options: KvOptions) {
    this.member = member;
    this.options = options;
    this.bigReads = options.bigReads;
    this.body = new ByteWriter(65536, this.bigReads.limits.answerBytesMax);
    this.txnBody = member.parts.applier.newBody();
  }

  range(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = this.rangeRequest;
    if (!request.parse(message, start, end)) {
      failMalformed(call);
      return;
    }
    const error =
      this.member.isLearner && !request.serializable ? etcdErrors.notSupportedForLearner : checkRange(request);
    if (error !== null) failWith(call, error);
    else if (request.serializable || this.member.canReadNow) {
      this.answerRange(call, request, message, start, end, false);
    } else this.readLater(this.rangeFrom, call, keepRequest(call, message, start, end));
  }

  /** From the copy that the call keeps. */
  private readonly rangeFrom = (call: ServerCall, kept: Buffer): void => {
    this.rangeRequest.parse(kept, 0, kept.length);
    this.answerRange(call, this.rangeRequest, kept, 0, kept.length, true);
  };

  private readLater(answer: AnswerKept, call: ServerCall, kept: Buffer): void {
    this.member.read(new ReadLater(answer, call, kept), kept.length);
  }

  /** The request lies in the message: a copy that the call keeps, or else a connection's buffer. */
  private answerRange(
    call: ServerCall,
    request: RangeRequest,
    message: Buffer,
    start: number,
    end: number,
    isKept: boolean,
  ): void {
    const { store, header, nowMs } = this.member.parts;
    const { body, bigReads } = this;
    const size = sizeOf(request, bigReads.limits.slice.keys);
    if (bigReads.mustWait(call, size, end - start)) {
      this.wait(this.rangeFrom, call, size, isKept ? message : keepRequest(call, message, start, end));
      return;
    }
    const startMs = nowMs();
    body.release(applyBodyBytesKept);
    const read = store.rangeSliced(request, body, bigReads.limits.slice);
    if (size !== ReadSize.keys) bigReads.spend(store.sliceKeys, body.length);
    if (read instanceof RangeRead) {
      if (!isKept) keepRequest(call, message, start, end);
      bigReads.begin(call, end - start, read, body, (error, bytes) => {
        this.noteRange(startMs, read.request, error, read.answered, bytes, read.headerRevision);
      });
      return;
    }
    const error = read === null && body.full ? messageTooLarge(body.bytesMax) : read;
    if (error !== null) failWith(call, error);
    else respondWithBody(call, header, store.rangeRevision, body);
    this.noteRange(startMs, request, error, -1, body.length, store.rangeRevision);
  }

  private wait(answer: AnswerKept, call: ServerCall, size: ReadSize, kept: Buffer): void {
    this.bigReads.wait(call, size, kept.length, () => answer(call, kept));
  }

  /** `answered`: how many KeyValues; -1: as many as the body holds. */
  private noteRange(
    startMs: number,
    request: RangeRequest,
    error: EtcdError | null,
    answered: number,
    bytes: number,
    revision: number,
  ): void {
    const { counters, nowMs, warningApplyMs } = this.member.parts;
    const tookMs = nowMs() - startMs;
    counters.observeRange(error === null, tookMs / 1000);
    counters.observeRequest(RequestField.range, error === null, tookMs / 1000);
    if (tookMs <= warningApplyMs) return;
    let response = '';
    if (error === null) {
      if (answered < 0) response = rangeResponseText(this.body, revision);
      else response = `range_response_count:${answered} size:${sizeWithRevision(bytes, revision)}`;
    }
    this.member.log.slowRead('read-only range ', rangeText(request), response, tookMs, error);
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
    else if (isSerializable(request) || this.member.canReadNow) {
      this.answerTxn(call, request, message, start, end, false);
    } else this.readLater(this.txnFrom, call, keepRequest(call, message, start, end));
  }

  private readonly txnFrom = (call: ServerCall, kept: Buffer): void => {
    this.answerTxn(call, txnIn(kept), kept, 0, kept.length, true);
  };

  /** A Txn that only reads; its request lies in the message, as in answerRange(). */
  private answerTxn(
    call: ServerCall,
    request: TxnRequest,
    message: Buffer,
    start: number,
    end: number,
    isKept: boolean,
  ): void {
    const { applier, store, header, counters, nowMs, warningApplyMs } = this.member.parts;
    const { bigReads } = this;
    const { slice } = bigReads.limits;
    const size = isOfKeys(request) ? ReadSize.keys : isPaged(request, slice.keys) ? ReadSize.page : ReadSize.any;
    if (bigReads.mustWait(call, size, end - start)) {
      this.wait(this.txnFrom, call, size, isKept ? message : keepRequest(call, message, start, end));
      return;
    }
    const startMs = nowMs();
    const body = this.txnBody;
    body.release(applyBodyBytesKept);
    const visitedBefore = store.keysVisited;
    const read = applier.readTxn(request, body, slice);
    if (size !== ReadSize.keys) bigReads.spend(store.keysVisited - visitedBefore, body.length);
    if (read instanceof TxnRead) {
      const kept = isKept ? message : keepRequest(call, message, start, end);
      if (size === ReadSize.keys && bigReads.mustWait(call, ReadSize.any, kept.length)) {
        // It is none of the many of single keys that end with their first slice: its values are large.
        read.close();
        this.wait(this.txnFrom, call, ReadSize.any, kept);
      } else this.goOnWithTxn(call, read, startMs, kept);
      return;
    }
    const error = read === null && body.full ? messageTooLarge(body.bytesMax) : read;
    const tookMs = nowMs() - startMs;
    counters.observeRequest(readOnlyTxnKind, error === null, tookMs / 1000);
    if (tookMs > warningApplyMs) {
      const response = error === null ? txnResponseText(body, store.currentRevision) : '';
      this.member.log.slowRead('read-only txn ', txnText(request), response, tookMs, error);
    }
    if (error !== null) failWith(call, error);
    else respondWithBody(call, header, store.currentRevision, body);
  }

  /** `txnBody` holds what of it is complete. */
  private goOnWithTxn(call: ServerCall, read: TxnRead, startMs: number, kept: Buffer): void {
    const { counters, nowMs, warningApplyMs } = this.member.parts;
    const counts = txnRangeCounts(this.txnBody);
    this.bigReads.begin(call, kept.length, read, this.txnBody, (error, bytes) => {
      const tookMs = nowMs() - startMs;
      counters.observeRequest(readOnlyTxnKind, error === null, tookMs / 1000);
      if (tookMs <= warningApplyMs) return;
      counts.push(...read.answered);
      const response = error === null ? txnCountsText(counts, bytes, read.headerRevision) : '';
      this.member.log.slowRead('read-only txn ', txnText(txnIn(kept)), response, tookMs, error);
    });
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

function sizeOf(request: RangeRequest, pageKeysMax: number): ReadSize {
  if (request.rangeEndStart === request.rangeEndEnd) return ReadSize.keys;
  return request.limit > 0 && request.limit <= pageKeysMax ? ReadSize.page : ReadSize.any;
}

/** A message that was parsed before. */
function txnIn(message: Buffer): TxnRequest {
  const request = new TxnRequest();
  request.parse(message, 0, message.length);
  return request;
}

/** Answers the request of a call from the copy that it keeps. */
type AnswerKept = (call: ServerCall, kept: Buffer) => void;

/** A copy of the request for its answer in a later turn: the only one, shared by the call and by what waits. */
function keepRequest(call: ServerCall, message: Buffer, start: number, end: number): Buffer {
  const kept = Buffer.from(message.subarray(start, end));
  call.keepRequest(kept, 0, kept.length);
  return kept;
}

/** A read that waits until what it may see is applied. */
class ReadLater implements ReadWaiter {
  private readonly answer: AnswerKept;
  private readonly call: ServerCall;
  private readonly kept: Buffer;
  constructor(answer: AnswerKept, call: ServerCall, kept: Buffer) {
    this.answer = answer;
    this.call = call;
    this.kept = kept;
  }
  ready(): void {
    if (!this.call.ended) this.answer(this.call, this.kept);
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
