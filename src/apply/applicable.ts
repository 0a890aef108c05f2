// Whether the request of an entry can be applied at all. Asked of what another member proposes before it gets into the log, where it would
// end every member that comes to it, at every start again. It says what the applier would say of the same bytes, by the same parsers
// (applicable.test.ts holds one against the other); whether the request then succeeds is the applier's to decide.

import { invalidDowngrade, parseVersion, type SemanticVersion } from '../membership/semantic-version.ts';
import {
  AlarmRequest,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  CompactionRequest,
  DowngradeInfoSetRequest,
  LeaseCheckpointRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { type InternalRequest, isAuthField, RequestField } from '../proto/internal-request.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, TxnScan } from '../proto/kv-request.ts';
import { decode, type Schema } from '../proto/message.ts';
import { checkOverlaps } from './txn-overlaps.ts';

const UNREADABLE = 'its request does not parse';
const EMPTY_KEY = 'it puts an empty key';

const putRequest = new PutRequest();
const rangeRequest = new RangeRequest();
const deleteRequest = new DeleteRangeRequest();
const txnScan = new TxnScan();

/**
 * Null, or why a server of version `server` cannot apply it. `buffer` is what `request` was parsed from. Hot: no object for a put, a range,
 * a delete or an operation of a Txn (server/message-check.bench.ts).
 */
export function inapplicableReason(request: InternalRequest, buffer: Buffer, server: SemanticVersion): string | null {
  const { field, start, end } = request;
  switch (field) {
    case RequestField.put:
      if (!putRequest.parse(buffer, start, end)) return UNREADABLE;
      return putRequest.keyStart === putRequest.keyEnd ? EMPTY_KEY : null;
    case RequestField.txn:
      return inapplicableTxn(buffer, start, end);
    case RequestField.deleteRange:
      return deleteRequest.parse(buffer, start, end) ? null : UNREADABLE;
    case RequestField.range:
      return rangeRequest.parse(buffer, start, end) ? null : UNREADABLE;
    case RequestField.leaseGrant:
      return unreadable(LeaseGrantRequest, buffer, start, end);
    case RequestField.leaseRevoke:
      return unreadable(LeaseRevokeRequest, buffer, start, end);
    default:
      return inapplicableOfServer(request, buffer, server);
  }
}

/** Where it keeps what it may have deleted, the branch would fail when it has written already: etcd's API lets one such case through. */
function inapplicableTxn(buffer: Buffer, start: number, end: number): string | null {
  if (!txnScan.parse(buffer, start, end)) return 'its txn does not parse, or nests too deep';
  if (txnScan.putsEmptyKey) return EMPTY_KEY;
  if (!txnScan.deletes || !txnScan.keepsOld) return null;
  const txn = new TxnRequest();
  txn.parse(buffer, start, end);
  const error = checkOverlaps(txn.success) ?? checkOverlaps(txn.failure);
  return error === null ? null : 'its txn puts what it may have deleted';
}

/** Requests that servers make, and rare ones. */
function inapplicableOfServer(request: InternalRequest, buffer: Buffer, server: SemanticVersion): string | null {
  const { field, start, end } = request;
  switch (field) {
    case RequestField.compaction:
      return unreadable(CompactionRequest, buffer, start, end);
    case RequestField.alarm:
      return unreadable(AlarmRequest, buffer, start, end);
    case RequestField.leaseCheckpoint:
      return unreadable(LeaseCheckpointRequest, buffer, start, end);
    case RequestField.clusterMemberAttrSet:
      return unreadable(ClusterMemberAttrSetRequest, buffer, start, end);
    case RequestField.clusterVersionSet: {
      const version = decode(ClusterVersionSetRequest, buffer, start, end)?.ver;
      if (version === undefined) return UNREADABLE;
      const parsed = parseVersion(version);
      // A cluster's version is its lowest server's: one that is above this server's is none, and would end it.
      return parsed === null ? 'it sets the version of the cluster to what is none' : invalidDowngrade(server, parsed);
    }
    case RequestField.downgradeInfoSet: {
      const downgrade = decode(DowngradeInfoSetRequest, buffer, start, end);
      if (downgrade === undefined) return UNREADABLE;
      // Any text can be applied here; an etcd of the cluster would end itself when it reads it.
      return downgrade.enabled && parseVersion(downgrade.ver) === null ? 'it goes down to what is no version' : null;
    }
    case RequestField.downgradeVersionTest:
      return null;
    default:
      return isAuthField(field)
        ? 'it is about authentication, users or roles, which this version of keelson cannot apply'
        : 'it holds no request that this version knows';
  }
}

function unreadable(schema: Schema, buffer: Buffer, start: number, end: number): string | null {
  return decode(schema, buffer, start, end) === undefined ? UNREADABLE : null;
}
