// The messages of etcdserverpb (etcd 3.7) that are off the hot path, as schemas by field number. Range, Put, DeleteRange and
// Txn have hand-written codecs in kv-request.ts and kv-response.ts; WatchResponse in watch-response.ts.

export const ResponseHeader = {
  clusterId: { no: 1, kind: 'uint64' },
  memberId: { no: 2, kind: 'uint64' },
  revision: { no: 3, kind: 'int' },
  raftTerm: { no: 4, kind: 'uint' },
} as const;

/** Responses that carry nothing but a header. */
export const HeaderOnlyResponse = { header: { no: 1, kind: ResponseHeader as typeof ResponseHeader } } as const;

export const CompactionRequest = { revision: { no: 1, kind: 'int' }, physical: { no: 2, kind: 'bool' } } as const;

export const HashKVRequest = { revision: { no: 1, kind: 'int' } } as const;
export const HashKVResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  hash: { no: 2, kind: 'uint' },
  compactRevision: { no: 3, kind: 'int' },
  hashRevision: { no: 4, kind: 'int' },
} as const;
export const HashResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  hash: { no: 2, kind: 'uint' },
} as const;

export const SnapshotResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  remainingBytes: { no: 2, kind: 'uint' },
  blob: { no: 3, kind: 'bytes' },
  version: { no: 4, kind: 'string' },
} as const;

export const FilterType = { noPut: 0, noDelete: 1 } as const;
export const WatchCreateRequest = {
  key: { no: 1, kind: 'bytes' },
  rangeEnd: { no: 2, kind: 'bytes' },
  startRevision: { no: 3, kind: 'int' },
  progressNotify: { no: 4, kind: 'bool' },
  filters: { no: 5, kind: 'enum', repeated: true },
  prevKv: { no: 6, kind: 'bool' },
  watchId: { no: 7, kind: 'int64' },
  fragment: { no: 8, kind: 'bool' },
} as const;
export const WatchCancelRequest = { watchId: { no: 1, kind: 'int64' } } as const;
export const WatchProgressRequest = {} as const;
export const WatchRequest = {
  createRequest: { no: 1, kind: WatchCreateRequest as typeof WatchCreateRequest, oneof: 'request' },
  cancelRequest: { no: 2, kind: WatchCancelRequest as typeof WatchCancelRequest, oneof: 'request' },
  progressRequest: { no: 3, kind: WatchProgressRequest as typeof WatchProgressRequest, oneof: 'request' },
} as const;

export const LeaseGrantRequest = { ttl: { no: 1, kind: 'int64' }, id: { no: 2, kind: 'int64' } } as const;
export const LeaseGrantResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  id: { no: 2, kind: 'int64' },
  ttl: { no: 3, kind: 'int64' },
  error: { no: 4, kind: 'string' },
} as const;
export const LeaseRevokeRequest = { id: { no: 1, kind: 'int64' } } as const;
export const LeaseCheckpoint = { id: { no: 1, kind: 'int64' }, remainingTtl: { no: 2, kind: 'int64' } } as const;
export const LeaseCheckpointRequest = {
  checkpoints: { no: 1, kind: LeaseCheckpoint as typeof LeaseCheckpoint, repeated: true },
} as const;
export const LeaseKeepAliveRequest = { id: { no: 1, kind: 'int64' } } as const;
export const LeaseKeepAliveResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  id: { no: 2, kind: 'int64' },
  ttl: { no: 3, kind: 'int64' },
} as const;
export const LeaseTimeToLiveRequest = { id: { no: 1, kind: 'int64' }, keys: { no: 2, kind: 'bool' } } as const;
export const LeaseTimeToLiveResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  id: { no: 2, kind: 'int64' },
  ttl: { no: 3, kind: 'int64' },
  grantedTtl: { no: 4, kind: 'int64' },
  keys: { no: 5, kind: 'bytes', repeated: true },
} as const;
export const LeaseStatus = { id: { no: 1, kind: 'int64' } } as const;
export const LeaseLeasesResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  leases: { no: 2, kind: LeaseStatus as typeof LeaseStatus, repeated: true },
} as const;

export const Member = {
  id: { no: 1, kind: 'uint64' },
  name: { no: 2, kind: 'string' },
  peerUrls: { no: 3, kind: 'string', repeated: true },
  clientUrls: { no: 4, kind: 'string', repeated: true },
  isLearner: { no: 5, kind: 'bool' },
} as const;
export const MemberAddRequest = {
  peerUrls: { no: 1, kind: 'string', repeated: true },
  isLearner: { no: 2, kind: 'bool' },
} as const;
export const MemberIdRequest = { id: { no: 1, kind: 'uint64' } } as const;
export const MemberUpdateRequest = {
  id: { no: 1, kind: 'uint64' },
  peerUrls: { no: 2, kind: 'string', repeated: true },
} as const;
export const MemberAddResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  member: { no: 2, kind: Member as typeof Member },
  members: { no: 3, kind: Member as typeof Member, repeated: true },
} as const;
export const MembersResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  members: { no: 2, kind: Member as typeof Member, repeated: true },
} as const;
export const MemberListRequest = { linearizable: { no: 1, kind: 'bool' } } as const;

export const MoveLeaderRequest = { targetId: { no: 1, kind: 'uint64' } } as const;

export const AlarmAction = { get: 0, activate: 1, deactivate: 2 } as const;
export const AlarmType = { none: 0, noSpace: 1, corrupt: 2 } as const;
export const AlarmRequest = {
  action: { no: 1, kind: 'enum' },
  memberId: { no: 2, kind: 'uint64' },
  alarm: { no: 3, kind: 'enum' },
} as const;
export const AlarmMember = { memberId: { no: 1, kind: 'uint64' }, alarm: { no: 2, kind: 'enum' } } as const;
export const AlarmResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  alarms: { no: 2, kind: AlarmMember as typeof AlarmMember, repeated: true },
} as const;

export const DowngradeAction = { validate: 0, enable: 1, cancel: 2 } as const;
export const DowngradeRequest = { action: { no: 1, kind: 'enum' }, version: { no: 2, kind: 'string' } } as const;
export const DowngradeResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  version: { no: 2, kind: 'string' },
} as const;
export const DowngradeInfo = { enabled: { no: 1, kind: 'bool' }, targetVersion: { no: 2, kind: 'string' } } as const;

export const StatusResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  version: { no: 2, kind: 'string' },
  dbSize: { no: 3, kind: 'int' },
  leader: { no: 4, kind: 'uint64' },
  raftIndex: { no: 5, kind: 'uint' },
  raftTerm: { no: 6, kind: 'uint' },
  raftAppliedIndex: { no: 7, kind: 'uint' },
  errors: { no: 8, kind: 'string', repeated: true },
  dbSizeInUse: { no: 9, kind: 'int' },
  isLearner: { no: 10, kind: 'bool' },
  storageVersion: { no: 11, kind: 'string' },
  dbSizeQuota: { no: 12, kind: 'int' },
  downgradeInfo: { no: 13, kind: DowngradeInfo as typeof DowngradeInfo },
} as const;

/** The log entry of a request; field 2 was etcd v2's. */
export const RequestHeader = {
  id: { no: 1, kind: 'uint64' },
  username: { no: 2, kind: 'string' },
  authRevision: { no: 3, kind: 'uint' },
} as const;
export const ClusterVersionSetRequest = { ver: { no: 1, kind: 'string' } } as const;
export const ClusterMemberAttrSetRequest = {
  memberId: { no: 1, kind: 'uint64' },
  memberAttributes: {
    no: 2,
    kind: { name: { no: 1, kind: 'string' }, clientUrls: { no: 2, kind: 'string', repeated: true } },
  },
} as const;
export const DowngradeInfoSetRequest = { enabled: { no: 1, kind: 'bool' }, ver: { no: 2, kind: 'string' } } as const;

export const AuthenticateRequest = { name: { no: 1, kind: 'string' }, password: { no: 2, kind: 'string' } } as const;
export const AuthenticateResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  token: { no: 2, kind: 'string' },
} as const;
export const AuthStatusResponse = {
  header: { no: 1, kind: ResponseHeader as typeof ResponseHeader },
  enabled: { no: 2, kind: 'bool' },
  authRevision: { no: 3, kind: 'uint' },
} as const;
