// How a simulated client calls a member: the requests of rpc/ without gRPC, as bytes in and bytes out, each with one end. A call that
// fails after it was proposed, or whose member dies, has an unknown outcome, as for a real client.

import { ByteWriter } from '../base/byte-writer.ts';
import { CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { decode, encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import {
  DeleteAnswer,
  DeleteMessage,
  decodeTxnAnswer,
  encodeTxn,
  PutMessage,
  RangeAnswer,
  RangeMessage,
} from './kv-messages.ts';
import type { Kv, KvAnswer, KvCall } from './kv-model.ts';
import type { SimMember } from './sim-member.ts';

/** refused: it has had no effect, for certain. unknown: it may have, or will. */
export type CallEnd =
  | { readonly kind: 'answered'; readonly answer: KvAnswer }
  | { readonly kind: 'refused'; readonly error: EtcdError }
  | { readonly kind: 'unknown'; readonly error: EtcdError | null };

export type CallDone = (end: CallEnd) => void;

const compactedCode: EtcdError = etcdErrors.compacted;

/** As the client's connection has it: at the latest after `timeoutMs`. */
export function callKv(sim: SimMember, call: KvCall, serializable: boolean, timeoutMs: number, done: CallDone): void {
  const once = withEnd(sim, timeoutMs, done);
  sim.enter(() => {
    if (sim.member === null) once({ kind: 'unknown', error: null });
    else if (call.kind === 'range') read(sim, call, serializable, once);
    else write(sim, call, once);
  });
}

/** One end: the first of answer, time-out and the member's death. */
function withEnd(sim: SimMember, timeoutMs: number, done: CallDone): CallDone {
  let isDone = false;
  const end: CallDone = (result) => {
    if (isDone) return;
    isDone = true;
    forget();
    // The answer's way to the client.
    sim.world.loop.after(sim.drawMs(0.2), () => done(result));
  };
  const forget = sim.onDeath(() => end({ kind: 'unknown', error: null }));
  sim.world.loop.after(timeoutMs, () => end({ kind: 'unknown', error: null }));
  return end;
}

function read(sim: SimMember, call: KvCall & { kind: 'range' }, serializable: boolean, done: CallDone): void {
  const member = sim.member!;
  const answer = (): void => {
    const { store } = member.parts;
    const { key, end = '', revision = 0 } = call;
    const bytes = encode(RangeMessage, { key: latin1(key), rangeEnd: latin1(end), revision });
    const request = new RangeRequest();
    request.parse(bytes, 0, bytes.length);
    const out = new ByteWriter(1024, 1 << 24);
    const error = store.range(request, out);
    if (error !== null) {
      done({ kind: 'refused', error });
      return;
    }
    const { kvs } = decode(RangeAnswer, out.bytes, 0, out.length)!;
    done({ kind: 'answered', answer: { revision: store.rangeRevision, kvs: kvs.map(kvOf) } });
  };
  if (serializable || member.canReadNow) answer();
  else member.read({ ready: answer, failed: (error) => done({ kind: 'refused', error }) });
}

interface KvBytes {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
}

function kvOf(kv: KvBytes): Kv {
  return {
    key: kv.key.toString('latin1'),
    value: kv.value.toString('latin1'),
    create: kv.createRevision,
    mod: kv.modRevision,
    version: kv.version,
  };
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

function write(sim: SimMember, call: Exclude<KvCall, { kind: 'range' }>, done: CallDone): void {
  const [field, bytes] = encodeWrite(call);
  propose(sim, field, bytes, (body, revision) => answerOf(call, body, revision), done);
}

function propose(
  sim: SimMember,
  field: RequestField,
  bytes: Buffer,
  answer: (body: Buffer, revision: number) => KvAnswer,
  done: CallDone,
): void {
  const refusal = sim.member!.propose(field, bytes, 0, bytes.length, {
    applied: ({ error, body, revision }) => {
      if (error === null) {
        const copy = Buffer.from(body.bytes.subarray(0, body.length));
        done({ kind: 'answered', answer: answer(copy, revision) });
      } else done({ kind: 'refused', error });
    },
    // Proposed, and nobody knows what became of it.
    failed: (error) => done({ kind: 'unknown', error }),
  });
  if (refusal !== null) done({ kind: 'refused', error: refusal });
}

function encodeWrite(call: Exclude<KvCall, { kind: 'range' }>): [RequestField, Buffer] {
  switch (call.kind) {
    case 'put': {
      const put = { key: latin1(call.key), value: latin1(call.value), lease: call.lease ?? 0n };
      return [RequestField.put, encode(PutMessage, put)];
    }
    case 'delete':
      return [
        RequestField.deleteRange,
        encode(DeleteMessage, { key: latin1(call.key), rangeEnd: latin1(call.end ?? '') }),
      ];
    case 'revoke':
      return [RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: call.lease })];
    case 'cas': {
      const key = latin1(call.key);
      // Result EQUAL (0); target VALUE (3) or, for a key that is not there, CREATE (1) of 0.
      const compare =
        call.expected === null
          ? { key, result: 0, target: 1, createRevision: 0 }
          : { key, result: 0, target: 3, value: latin1(call.expected) };
      const bytes = encodeTxn({
        compare: [compare],
        success: [{ put: { key, value: latin1(call.value) } }],
        failure: [{ range: { key } }],
      });
      return [RequestField.txn, bytes];
    }
  }
}

function answerOf(call: Exclude<KvCall, { kind: 'range' }>, body: Buffer, revision: number): KvAnswer {
  if (call.kind === 'delete') return { revision, deleted: decode(DeleteAnswer, body)!.deleted };
  if (call.kind !== 'cas') return { revision };
  const { succeeded, responses } = decodeTxnAnswer(body)!;
  const found = responses[0]?.range;
  return { revision, succeeded, ...(found === undefined ? {} : { kvs: found.kvs.map(kvOf) }) };
}

/** Compacts; what was compacted already counts as done. */
export function callCompact(sim: SimMember, revision: number, timeoutMs: number, done: CallDone): void {
  const once = withEnd(sim, timeoutMs, done);
  const bytes = encode(CompactionRequest, { revision });
  sim.enter(() =>
    propose(
      sim,
      RequestField.compaction,
      bytes,
      () => ({}),
      (end) => once(end.kind === 'refused' && end.error === compactedCode ? { kind: 'answered', answer: {} } : end),
    ),
  );
}

export function callGrant(sim: SimMember, id: bigint, ttlSeconds: number, timeoutMs: number, done: CallDone): void {
  const once = withEnd(sim, timeoutMs, done);
  const bytes = encode(LeaseGrantRequest, { id, ttl: BigInt(ttlSeconds) });
  sim.enter(() => propose(sim, RequestField.leaseGrant, bytes, (_, revision) => ({ revision }), once));
}

/** The TTL in seconds, 0: there is no such lease, null: nobody knows. */
export function callRenew(
  sim: SimMember,
  id: bigint,
  timeoutMs: number,
  done: (ttlSeconds: number | null) => void,
): void {
  let ttl: number | null = null;
  const caller = { ended: false };
  const once = withEnd(sim, timeoutMs, (end) => {
    caller.ended = true;
    done(end.kind === 'answered' ? ttl : null);
  });
  sim.enter(() =>
    sim.member!.leases.renew(id, caller, (result) => {
      if (caller.ended) return;
      if (typeof result === 'number') ttl = result;
      else if (result === etcdErrors.leaseNotFound) ttl = 0;
      else {
        once({ kind: 'unknown', error: result });
        return;
      }
      once({ kind: 'answered', answer: {} });
    }),
  );
}
