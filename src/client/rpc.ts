// The methods of etcd's v3 services that the client calls: path, messages, and whether a call that got no answer may be sent
// again. Writes are never repeated once they may have reached a server (at most once); what only reads, and what has the same
// effect twice, is, as in clientv3's retry policies.

import * as pb from '../proto/etcdserverpb.ts';
import * as kv from '../proto/kv-schema.ts';
import type { Schema } from '../proto/message.ts';

export interface Method<Q extends Schema, R extends Schema> {
  readonly path: string;
  readonly request: Q;
  readonly response: R;
  readonly isRepeatable: boolean;
}

const Empty = {} as const;

const SnapshotRequest = {} as const;
const MoveLeaderRequest = { targetId: { no: 1, kind: 'uint64' } } as const;

export const rpc = {
  range: {
    path: '/etcdserverpb.KV/Range',
    request: kv.RangeRequest as typeof kv.RangeRequest,
    response: kv.RangeResponse as typeof kv.RangeResponse,
    isRepeatable: true,
  },
  rangeStream: {
    path: '/etcdserverpb.KV/RangeStream',
    request: kv.RangeRequest as typeof kv.RangeRequest,
    response: kv.RangeStreamResponse as typeof kv.RangeStreamResponse,
    isRepeatable: false,
  },
  put: {
    path: '/etcdserverpb.KV/Put',
    request: kv.PutRequest as typeof kv.PutRequest,
    response: kv.PutResponse as typeof kv.PutResponse,
    isRepeatable: false,
  },
  deleteRange: {
    path: '/etcdserverpb.KV/DeleteRange',
    request: kv.DeleteRangeRequest as typeof kv.DeleteRangeRequest,
    response: kv.DeleteRangeResponse as typeof kv.DeleteRangeResponse,
    isRepeatable: false,
  },
  txn: {
    path: '/etcdserverpb.KV/Txn',
    request: kv.TxnRequest as kv.TxnRequestSchema,
    response: kv.TxnResponse as kv.TxnResponseSchema,
    isRepeatable: false,
  },
  compact: {
    path: '/etcdserverpb.KV/Compact',
    request: pb.CompactionRequest as typeof pb.CompactionRequest,
    response: pb.HeaderOnlyResponse as typeof pb.HeaderOnlyResponse,
    isRepeatable: false,
  },
  watch: {
    path: '/etcdserverpb.Watch/Watch',
    request: pb.WatchRequest as typeof pb.WatchRequest,
    response: kv.WatchResponse as typeof kv.WatchResponse,
    isRepeatable: true,
  },
  leaseGrant: {
    path: '/etcdserverpb.Lease/LeaseGrant',
    request: pb.LeaseGrantRequest as typeof pb.LeaseGrantRequest,
    response: pb.LeaseGrantResponse as typeof pb.LeaseGrantResponse,
    isRepeatable: true,
  },
  leaseRevoke: {
    path: '/etcdserverpb.Lease/LeaseRevoke',
    request: pb.LeaseRevokeRequest as typeof pb.LeaseRevokeRequest,
    response: pb.HeaderOnlyResponse as typeof pb.HeaderOnlyResponse,
    isRepeatable: true,
  },
  leaseKeepAlive: {
    path: '/etcdserverpb.Lease/LeaseKeepAlive',
    request: pb.LeaseKeepAliveRequest as typeof pb.LeaseKeepAliveRequest,
    response: pb.LeaseKeepAliveResponse as typeof pb.LeaseKeepAliveResponse,
    isRepeatable: true,
  },
  leaseTimeToLive: {
    path: '/etcdserverpb.Lease/LeaseTimeToLive',
    request: pb.LeaseTimeToLiveRequest as typeof pb.LeaseTimeToLiveRequest,
    response: pb.LeaseTimeToLiveResponse as typeof pb.LeaseTimeToLiveResponse,
    isRepeatable: true,
  },
  leaseLeases: {
    path: '/etcdserverpb.Lease/LeaseLeases',
    request: Empty as typeof Empty,
    response: pb.LeaseLeasesResponse as typeof pb.LeaseLeasesResponse,
    isRepeatable: true,
  },
  memberList: {
    path: '/etcdserverpb.Cluster/MemberList',
    request: pb.MemberListRequest as typeof pb.MemberListRequest,
    response: pb.MembersResponse as typeof pb.MembersResponse,
    isRepeatable: true,
  },
  memberAdd: {
    path: '/etcdserverpb.Cluster/MemberAdd',
    request: pb.MemberAddRequest as typeof pb.MemberAddRequest,
    response: pb.MemberAddResponse as typeof pb.MemberAddResponse,
    isRepeatable: false,
  },
  memberRemove: {
    path: '/etcdserverpb.Cluster/MemberRemove',
    request: pb.MemberIdRequest as typeof pb.MemberIdRequest,
    response: pb.MembersResponse as typeof pb.MembersResponse,
    isRepeatable: false,
  },
  memberUpdate: {
    path: '/etcdserverpb.Cluster/MemberUpdate',
    request: pb.MemberUpdateRequest as typeof pb.MemberUpdateRequest,
    response: pb.MembersResponse as typeof pb.MembersResponse,
    isRepeatable: false,
  },
  memberPromote: {
    path: '/etcdserverpb.Cluster/MemberPromote',
    request: pb.MemberIdRequest as typeof pb.MemberIdRequest,
    response: pb.MembersResponse as typeof pb.MembersResponse,
    isRepeatable: false,
  },
  alarm: {
    path: '/etcdserverpb.Maintenance/Alarm',
    request: pb.AlarmRequest as typeof pb.AlarmRequest,
    response: pb.AlarmResponse as typeof pb.AlarmResponse,
    isRepeatable: true,
  },
  status: {
    path: '/etcdserverpb.Maintenance/Status',
    request: Empty as typeof Empty,
    response: pb.StatusResponse as typeof pb.StatusResponse,
    isRepeatable: true,
  },
  defragment: {
    path: '/etcdserverpb.Maintenance/Defragment',
    request: Empty as typeof Empty,
    response: pb.HeaderOnlyResponse as typeof pb.HeaderOnlyResponse,
    isRepeatable: false,
  },
  hashKv: {
    path: '/etcdserverpb.Maintenance/HashKV',
    request: pb.HashKVRequest as typeof pb.HashKVRequest,
    response: pb.HashKVResponse as typeof pb.HashKVResponse,
    isRepeatable: true,
  },
  snapshot: {
    path: '/etcdserverpb.Maintenance/Snapshot',
    request: SnapshotRequest as typeof SnapshotRequest,
    response: pb.SnapshotResponse as typeof pb.SnapshotResponse,
    isRepeatable: true,
  },
  downgrade: {
    path: '/etcdserverpb.Maintenance/Downgrade',
    request: pb.DowngradeRequest as typeof pb.DowngradeRequest,
    response: pb.DowngradeResponse as typeof pb.DowngradeResponse,
    isRepeatable: false,
  },
  moveLeader: {
    path: '/etcdserverpb.Maintenance/MoveLeader',
    request: MoveLeaderRequest as typeof MoveLeaderRequest,
    response: pb.HeaderOnlyResponse as typeof pb.HeaderOnlyResponse,
    isRepeatable: true,
  },
  authenticate: {
    path: '/etcdserverpb.Auth/Authenticate',
    request: pb.AuthenticateRequest as typeof pb.AuthenticateRequest,
    response: pb.AuthenticateResponse as typeof pb.AuthenticateResponse,
    isRepeatable: false,
  },
} as const;
