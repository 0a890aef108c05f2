// A committed entry → its effect on the replicated state, as one explicit sequence of checks in etcd's order: corrupt alarm,
// no-space alarm, quota (which only marks the answer), then the request itself. A pure function of the entry and the replicated
// state, apart from the quota's mark: every member that applies the same entries holds the same state.
//
// The answer's body (every field of the response after its header) is written into `body`, which the next apply reuses. The effect
// does not depend on the answer: it is bounded, and where nobody waits for it (a follower, a start) little of it is built.

import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import { assertApplicable, ExitCode, FatalError } from '../base/fatal.ts';
import type { Lessor } from '../lease/lessor.ts';
import { applyAnswerBytesMax, applyBodyBytesKept, type ReadSlice } from '../limits.ts';
import type { Cluster } from '../membership/cluster.ts';
import { parseVersion } from '../membership/semantic-version.ts';
import type { Store } from '../mvcc/store.ts';
import {
  AlarmAction,
  AlarmMember,
  AlarmRequest,
  AlarmType,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  CompactionRequest,
  DowngradeInfoSetRequest,
  LeaseCheckpointRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { type InternalRequest, isAuthField, RequestField } from '../proto/internal-request.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { decode, encode, type Message, type Schema } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { AlarmStore } from './alarms.ts';
import { LEASE_COST_BYTES, putCost, txnCost } from './quota.ts';
import { TxnRunner } from './txn.ts';
import type { TxnRead } from './txn-read.ts';

export interface ApplierOptions {
  readonly store: Store;
  readonly lessor: Lessor;
  readonly alarms: AlarmStore;
  readonly cluster: Cluster;
  /** Bytes of the backend now, by our own accounting; compared with the quota. */
  readonly backendBytes: () => number;
  /** Infinity when the quota is off. */
  readonly quotaBytes: number;
  /** Starts the deletes of a compaction that was accepted. */
  readonly onCompact: (revision: number) => void;
  /** applyAnswerBytesMax, but for tests. */
  readonly answerBytesMax?: number;
}

/** Where in the log an entry is. */
export interface EntryPosition {
  readonly index: number;
  readonly term: number;
}

/** Of a request that comes from no log. */
const NO_ENTRY: EntryPosition = { index: 0, term: 0 };

export class Applier {
  /** The last answer: null or why the request failed, its body and the revision of its header. */
  error: EtcdError | null = null;
  readonly body: ByteWriter;
  revision = 0;
  /** Set when the last request succeeded but crossed the quota: the no-space alarm has to be proposed. */
  crossedQuota = false;

  private readonly options: ApplierOptions;
  private readonly txns: TxnRunner;
  /** Whose request is applied. */
  private entry: EntryPosition = NO_ENTRY;
  private readonly putRequest = new PutRequest();
  private readonly rangeRequest = new RangeRequest();
  private readonly deleteRequest = new DeleteRangeRequest();

  constructor(options: ApplierOptions) {
    this.options = options;
    this.body = this.newBody();
    this.txns = new TxnRunner(options.store, options.lessor);
  }

  /** A buffer for an answer with the bound that this one's have: full afterwards, if that was not enough. */
  newBody(): ByteWriter {
    return new ByteWriter(65536, this.options.answerBytesMax ?? applyAnswerBytesMax);
  }

  /**
   * Applies one request of an entry. Afterwards `error`, `body`, `revision` and `crossedQuota` are its answer, if it `isAwaited`; a
   * body that is full lacks something. A request that no member can apply is fatal, and names its entry.
   */
  apply(request: InternalRequest, buffer: Buffer, isAwaited = true, entry: EntryPosition = NO_ENTRY): void {
    this.entry = entry;
    this.error = null;
    this.crossedQuota = false;
    this.body.release(applyBodyBytesKept);
    this.body.full = !isAwaited;
    this.revision = this.options.store.currentRevision;
    const { field, start, end } = request;
    switch (field) {
      case RequestField.put:
        this.put(buffer, start, end);
        break;
      case RequestField.txn:
        this.txn(buffer, start, end);
        break;
      case RequestField.deleteRange:
        this.deleteRange(buffer, start, end);
        break;
      case RequestField.range:
        this.range(buffer, start, end);
        break;
      case RequestField.compaction:
        this.compact(this.mustDecode(CompactionRequest, buffer, start, end).revision);
        break;
      case RequestField.leaseGrant:
        this.leaseGrant(this.mustDecode(LeaseGrantRequest, buffer, start, end));
        break;
      case RequestField.leaseRevoke:
        this.leaseRevoke(this.mustDecode(LeaseRevokeRequest, buffer, start, end).id);
        break;
      default:
        this.applyUnguarded(field, buffer, start, end);
    }
  }

  /** Requests that no alarm stops. */
  private applyUnguarded(field: number, buffer: Buffer, start: number, end: number): void {
    const { lessor, cluster } = this.options;
    switch (field) {
      case RequestField.alarm:
        this.alarm(this.mustDecode(AlarmRequest, buffer, start, end));
        break;
      case RequestField.leaseCheckpoint:
        for (const { id, remainingTtl } of this.mustDecode(LeaseCheckpointRequest, buffer, start, end).checkpoints) {
          lessor.checkpoint(id, Number(remainingTtl));
        }
        break;
      case RequestField.clusterVersionSet:
        this.setClusterVersion(this.mustDecode(ClusterVersionSetRequest, buffer, start, end).ver);
        break;
      case RequestField.clusterMemberAttrSet: {
        const { memberId, memberAttributes } = this.mustDecode(ClusterMemberAttrSetRequest, buffer, start, end);
        cluster.updateAttributes(memberId, memberAttributes?.name ?? '', memberAttributes?.clientUrls ?? []);
        break;
      }
      case RequestField.downgradeInfoSet: {
        const { enabled, ver } = this.mustDecode(DowngradeInfoSetRequest, buffer, start, end);
        cluster.setDowngrade(enabled, enabled ? ver : '');
        break;
      }
      case RequestField.downgradeVersionTest:
        break;
      default:
        if (isAuthField(field)) throw authEntry();
        assertApplicable(false, this.entry, 'holds no request that this version knows');
    }
  }

  private mustDecode<S extends Schema>(schema: S, buffer: Buffer, start: number, end: number): Message<S> {
    const message = decode(schema, buffer, start, end);
    assertApplicable(message !== undefined, this.entry, 'holds a request that does not parse');
    return message;
  }

  /** Before anything of it is stored: every start reads it. */
  private setClusterVersion(version: string): void {
    assertApplicable(parseVersion(version) !== null, this.entry, 'sets the version of the cluster to what is none');
    this.options.cluster.setVersion(version);
  }

  private get isCorrupt(): boolean {
    return this.options.alarms.has(AlarmType.corrupt);
  }

  private get isNoSpace(): boolean {
    return this.options.alarms.has(AlarmType.noSpace);
  }

  private markQuota(costBytes: number): void {
    const { backendBytes, quotaBytes } = this.options;
    if (costBytes > 0 && backendBytes() + costBytes >= quotaBytes) this.crossedQuota = true;
  }

  private put(buffer: Buffer, start: number, end: number): void {
    const put = this.putRequest;
    assertApplicable(put.parse(buffer, start, end), this.entry, 'holds a put that does not parse');
    if (this.isCorrupt) this.error = etcdErrors.corrupt;
    else if (this.isNoSpace) this.error = etcdErrors.noSpace;
    if (this.error !== null) return;
    this.markQuota(putCost(put));
    const store = this.options.store;
    store.begin();
    this.error = this.txns.checkPut(put);
    if (this.error === null) this.txns.put(put, this.body);
    else this.crossedQuota = false;
    store.end();
    this.revision = store.currentRevision;
  }

  private txn(buffer: Buffer, start: number, end: number): void {
    const txn = new TxnRequest();
    assertApplicable(txn.parse(buffer, start, end), this.entry, 'holds a txn that does not parse');
    const cost = txnCost(txn);
    if (this.isCorrupt) this.error = etcdErrors.corrupt;
    else if (cost > 0 && this.isNoSpace) this.error = etcdErrors.noSpace;
    if (this.error !== null) return;
    this.markQuota(cost);
    const store = this.options.store;
    store.begin();
    this.error = this.txns.run(txn, this.body);
    assert(this.error === null || store.changes.length === 0, 'a txn failed after its first write');
    if (this.error !== null) this.crossedQuota = false;
    store.end();
    this.revision = store.currentRevision;
  }

  /**
   * A slice of a Txn of ranges alone, outside raft: only reads, so no entry and no transaction; as in etcd no alarm stops it. What is
   * left goes on by the TxnRead.
   */
  readTxn(txn: TxnRequest, out: ByteWriter, slice: ReadSlice): EtcdError | TxnRead | null {
    const read = this.txns.runReads(txn, out, slice);
    this.options.store.noteTransaction();
    return read;
  }

  private deleteRange(buffer: Buffer, start: number, end: number): void {
    const request = this.deleteRequest;
    assertApplicable(request.parse(buffer, start, end), this.entry, 'holds a delete that does not parse');
    if (this.isCorrupt) {
      this.error = etcdErrors.corrupt;
      return;
    }
    const store = this.options.store;
    store.begin();
    this.txns.deleteRange(request, this.body, false);
    store.end();
    this.revision = store.currentRevision;
  }

  private range(buffer: Buffer, start: number, end: number): void {
    assertApplicable(this.rangeRequest.parse(buffer, start, end), this.entry, 'holds a range that does not parse');
    const { store } = this.options;
    if (this.isCorrupt) this.error = etcdErrors.corrupt;
    else if (!this.body.full) this.error = store.range(this.rangeRequest, this.body);
  }

  private compact(revision: number): void {
    if (this.isCorrupt) {
      this.error = etcdErrors.corrupt;
      return;
    }
    this.error = this.options.store.compact(revision);
    if (this.error !== null) return;
    // etcd reads the revision of the answer by a range.
    this.options.store.noteRange();
    this.options.onCompact(revision);
  }

  private leaseGrant(request: Message<typeof LeaseGrantRequest>): void {
    if (this.isCorrupt) this.error = etcdErrors.corrupt;
    else if (this.isNoSpace) this.error = etcdErrors.noSpace;
    if (this.error !== null) return;
    this.markQuota(LEASE_COST_BYTES);
    const lease = this.options.lessor.grant(request.id, request.ttl);
    if ('code' in lease) {
      this.crossedQuota = false;
      this.error = lease;
      return;
    }
    // LeaseGrantResponse after its header: 2: ID, 3: TTL.
    const encoded = encode(GrantBody, { id: lease.id, ttl: lease.ttlSeconds });
    this.body.copy(encoded, 0, encoded.length);
  }

  private leaseRevoke(id: bigint): void {
    if (this.isCorrupt) {
      this.error = etcdErrors.corrupt;
      return;
    }
    const { lessor, store } = this.options;
    const lease = lessor.lookup(id);
    if (lease === undefined) {
      this.error = etcdErrors.leaseNotFound;
      return;
    }
    // All attached keys go in one revision, in the order of their bytes.
    store.begin();
    for (const key of lessor.sortedKeys(lease)) {
      store.noteDelete();
      store.deleteKey(key, 0, key.length);
    }
    store.end();
    this.revision = store.currentRevision;
    // Last: it calls those who wait for the lease's end.
    lessor.revoked(lease);
  }

  private alarm(request: Message<typeof AlarmRequest>): void {
    const { alarms } = this.options;
    let answered: { readonly memberId: bigint; readonly alarm: number }[] = [];
    if (request.action === AlarmAction.get) answered = alarms.get(request.alarm);
    else if (request.action === AlarmAction.activate) {
      if (request.alarm !== AlarmType.none) answered = [alarms.activate(request.memberId, request.alarm)];
    } else if (request.action === AlarmAction.deactivate) {
      const alarm = alarms.deactivate(request.memberId, request.alarm);
      if (alarm !== undefined) answered = [alarm];
    }
    const encoded = encode(AlarmBody, { alarms: answered });
    this.body.copy(encoded, 0, encoded.length);
  }
}

const GrantBody = { id: { no: 2, kind: 'int64' }, ttl: { no: 3, kind: 'int' } } as const;
const AlarmBody = { alarms: { no: 2, kind: AlarmMember, repeated: true } } as const;

/** Only an etcd of a mixed cluster proposes one. To pass over it would be another state than etcd's. */
function authEntry(): FatalError {
  return new FatalError(
    ExitCode.dataDir,
    'the log has a request about authentication, users or roles, which this version of keelson cannot apply yet (issue 5): an etcd of ' +
      'this cluster took it. This member cannot go on: remove it from the cluster, or replace it by an etcd',
  );
}
