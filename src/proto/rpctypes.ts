// The statuses that etcd's services answer with (rpctypes of etcd 3.7): code and exact message, which clients match on. Values,
// not exceptions: a function that can fail for a client's reason returns one. The codes are grpc's numbers.
//
// Two of them (`memberNotEnoughStarted`, `requestTooManyRequests`) reach the wire from etcd as UNKNOWN, because it forgets their
// status; keelson sends the declared code, which Go's client maps to the same error and other clients can read.

export interface EtcdError {
  readonly code: number;
  readonly message: string;
}

export const etcdErrors = {
  emptyKey: { code: 3, message: 'etcdserver: key is not provided' },
  keyNotFound: { code: 3, message: 'etcdserver: key not found' },
  valueProvided: { code: 3, message: 'etcdserver: value is provided' },
  leaseProvided: { code: 3, message: 'etcdserver: lease is provided' },
  tooManyOps: { code: 3, message: 'etcdserver: too many operations in txn request' },
  duplicateKey: { code: 3, message: 'etcdserver: duplicate key given in txn request' },
  invalidClientAPIVersion: { code: 3, message: 'etcdserver: invalid client api version' },
  invalidSortOption: { code: 3, message: 'etcdserver: invalid sort option' },
  compacted: { code: 11, message: 'etcdserver: mvcc: required revision has been compacted' },
  futureRev: { code: 11, message: 'etcdserver: mvcc: required revision is a future revision' },
  noSpace: { code: 8, message: 'etcdserver: mvcc: database space exceeded' },
  leaseNotFound: { code: 5, message: 'etcdserver: requested lease not found' },
  leaseExist: { code: 9, message: 'etcdserver: lease already exists' },
  leaseTTLTooLarge: { code: 11, message: 'etcdserver: too large lease TTL' },
  watchCanceled: { code: 1, message: 'etcdserver: watch canceled' },
  memberExist: { code: 9, message: 'etcdserver: member ID already exist' },
  peerUrlExist: { code: 9, message: 'etcdserver: Peer URLs already exists' },
  memberNotEnoughStarted: { code: 9, message: 'etcdserver: re-configuration failed due to not enough started members' },
  memberBadUrls: { code: 3, message: 'etcdserver: given member URLs are invalid' },
  memberNotFound: { code: 5, message: 'etcdserver: member not found' },
  memberNotLearner: { code: 9, message: 'etcdserver: can only promote a learner member' },
  learnerNotReady: { code: 9, message: 'etcdserver: can only promote a learner member which is in sync with leader' },
  tooManyLearners: { code: 9, message: 'etcdserver: too many learner members in cluster' },
  clusterIdMismatch: { code: 9, message: 'etcdserver: cluster ID mismatch' },
  requestTooLarge: { code: 3, message: 'etcdserver: request is too large' },
  requestTooManyRequests: { code: 8, message: 'etcdserver: too many requests' },
  rootUserNotExist: { code: 9, message: 'etcdserver: root user does not exist' },
  rootRoleNotExist: { code: 9, message: 'etcdserver: root user does not have root role' },
  userAlreadyExist: { code: 9, message: 'etcdserver: user name already exists' },
  userEmpty: { code: 3, message: 'etcdserver: user name is empty' },
  userNotFound: { code: 9, message: 'etcdserver: user name not found' },
  roleAlreadyExist: { code: 9, message: 'etcdserver: role name already exists' },
  roleNotFound: { code: 9, message: 'etcdserver: role name not found' },
  roleEmpty: { code: 3, message: 'etcdserver: role name is empty' },
  authFailed: { code: 3, message: 'etcdserver: authentication failed, invalid user ID or password' },
  permissionNotGiven: { code: 3, message: 'etcdserver: permission not given' },
  permissionDenied: { code: 7, message: 'etcdserver: permission denied' },
  roleNotGranted: { code: 9, message: 'etcdserver: role is not granted to the user' },
  permissionNotGranted: { code: 9, message: 'etcdserver: permission is not granted to the role' },
  authNotEnabled: { code: 9, message: 'etcdserver: authentication is not enabled' },
  invalidAuthToken: { code: 16, message: 'etcdserver: invalid auth token' },
  invalidAuthMgmt: { code: 3, message: 'etcdserver: invalid auth management' },
  authOldRevision: { code: 3, message: 'etcdserver: revision of auth store is old' },
  noLeader: { code: 14, message: 'etcdserver: no leader' },
  notLeader: { code: 9, message: 'etcdserver: not leader' },
  leaderChanged: { code: 14, message: 'etcdserver: leader changed' },
  notCapable: { code: 9, message: 'etcdserver: not capable' },
  stopped: { code: 14, message: 'etcdserver: server stopped' },
  timeout: { code: 14, message: 'etcdserver: request timed out' },
  timeoutDueToLeaderFail: {
    code: 14,
    message: 'etcdserver: request timed out, possibly due to previous leader failure',
  },
  timeoutDueToConnectionLost: { code: 14, message: 'etcdserver: request timed out, possibly due to connection lost' },
  timeoutWaitAppliedIndex: {
    code: 14,
    message: 'etcdserver: request timed out, waiting for the applied index took too long',
  },
  unhealthy: { code: 14, message: 'etcdserver: unhealthy cluster' },
  corrupt: { code: 15, message: 'etcdserver: corrupt cluster' },
  notSupportedForLearner: { code: 9, message: 'etcdserver: rpc not supported for learner' },
  badLeaderTransferee: { code: 9, message: 'etcdserver: bad leader transferee' },
  wrongDowngradeVersionFormat: { code: 3, message: 'etcdserver: wrong downgrade target version format' },
  invalidDowngradeTargetVersion: { code: 3, message: 'etcdserver: invalid downgrade target version' },
  clusterVersionUnavailable: { code: 9, message: 'etcdserver: cluster version not found during downgrade' },
  downgradeInProcess: { code: 9, message: 'etcdserver: cluster has a downgrade job in progress' },
  noInflightDowngrade: { code: 9, message: 'etcdserver: no inflight downgrade job' },
  canceled: { code: 1, message: 'etcdserver: request canceled' },
  deadlineExceeded: { code: 4, message: 'etcdserver: context deadline exceeded' },
} as const;

/** grpc-go's status for an answer beyond the bound of a message; it tells the size too, which is not known where building it stopped. */
export function messageTooLarge(bytesMax: number): EtcdError {
  return { code: 8, message: `grpc: trying to send message larger than max (${bytesMax} bytes)` };
}
