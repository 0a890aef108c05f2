// Goal: codes and messages are etcd's to the byte, since clients match on them. Method: the table of etcd 3.7's rpctypes typed in
// from its documentation, held against ours by name.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EtcdError, etcdErrors } from './rpctypes.ts';

/** Name without ErrGRPC, grpc code, message after "etcdserver: ". */
const table: readonly (readonly [string, number, string])[] = [
  ['EmptyKey', 3, 'key is not provided'],
  ['KeyNotFound', 3, 'key not found'],
  ['ValueProvided', 3, 'value is provided'],
  ['LeaseProvided', 3, 'lease is provided'],
  ['TooManyOps', 3, 'too many operations in txn request'],
  ['DuplicateKey', 3, 'duplicate key given in txn request'],
  ['InvalidClientAPIVersion', 3, 'invalid client api version'],
  ['InvalidSortOption', 3, 'invalid sort option'],
  ['Compacted', 11, 'mvcc: required revision has been compacted'],
  ['FutureRev', 11, 'mvcc: required revision is a future revision'],
  ['NoSpace', 8, 'mvcc: database space exceeded'],
  ['LeaseNotFound', 5, 'requested lease not found'],
  ['LeaseExist', 9, 'lease already exists'],
  ['LeaseTTLTooLarge', 11, 'too large lease TTL'],
  ['WatchCanceled', 1, 'watch canceled'],
  ['MemberExist', 9, 'member ID already exist'],
  ['PeerURLExist', 9, 'Peer URLs already exists'],
  ['MemberNotEnoughStarted', 9, 're-configuration failed due to not enough started members'],
  ['MemberBadURLs', 3, 'given member URLs are invalid'],
  ['MemberNotFound', 5, 'member not found'],
  ['MemberNotLearner', 9, 'can only promote a learner member'],
  ['LearnerNotReady', 9, 'can only promote a learner member which is in sync with leader'],
  ['TooManyLearners', 9, 'too many learner members in cluster'],
  ['ClusterIDMismatch', 9, 'cluster ID mismatch'],
  ['RequestTooLarge', 3, 'request is too large'],
  ['RequestTooManyRequests', 8, 'too many requests'],
  ['RootUserNotExist', 9, 'root user does not exist'],
  ['RootRoleNotExist', 9, 'root user does not have root role'],
  ['UserAlreadyExist', 9, 'user name already exists'],
  ['UserEmpty', 3, 'user name is empty'],
  ['UserNotFound', 9, 'user name not found'],
  ['RoleAlreadyExist', 9, 'role name already exists'],
  ['RoleNotFound', 9, 'role name not found'],
  ['RoleEmpty', 3, 'role name is empty'],
  ['AuthFailed', 3, 'authentication failed, invalid user ID or password'],
  ['PermissionNotGiven', 3, 'permission not given'],
  ['PermissionDenied', 7, 'permission denied'],
  ['RoleNotGranted', 9, 'role is not granted to the user'],
  ['PermissionNotGranted', 9, 'permission is not granted to the role'],
  ['AuthNotEnabled', 9, 'authentication is not enabled'],
  ['InvalidAuthToken', 16, 'invalid auth token'],
  ['InvalidAuthMgmt', 3, 'invalid auth management'],
  ['AuthOldRevision', 3, 'revision of auth store is old'],
  ['NoLeader', 14, 'no leader'],
  ['NotLeader', 9, 'not leader'],
  ['LeaderChanged', 14, 'leader changed'],
  ['NotCapable', 9, 'not capable'],
  ['Stopped', 14, 'server stopped'],
  ['Timeout', 14, 'request timed out'],
  ['TimeoutDueToLeaderFail', 14, 'request timed out, possibly due to previous leader failure'],
  ['TimeoutDueToConnectionLost', 14, 'request timed out, possibly due to connection lost'],
  ['TimeoutWaitAppliedIndex', 14, 'request timed out, waiting for the applied index took too long'],
  ['Unhealthy', 14, 'unhealthy cluster'],
  ['Corrupt', 15, 'corrupt cluster'],
  ['NotSupportedForLearner', 9, 'rpc not supported for learner'],
  ['BadLeaderTransferee', 9, 'bad leader transferee'],
  ['WrongDowngradeVersionFormat', 3, 'wrong downgrade target version format'],
  ['InvalidDowngradeTargetVersion', 3, 'invalid downgrade target version'],
  ['ClusterVersionUnavailable', 9, 'cluster version not found during downgrade'],
  ['DowngradeInProcess', 9, 'cluster has a downgrade job in progress'],
  ['NoInflightDowngrade', 9, 'no inflight downgrade job'],
  ['Canceled', 1, 'request canceled'],
  ['DeadlineExceeded', 4, 'context deadline exceeded'],
];

/** ErrGRPCMemberBadURLs is memberBadUrls here: words are not written in capitals. */
function sameName(name: string): string {
  return name.toLowerCase();
}

test('every error of etcd, with its code and exact message, and no other', () => {
  const ours = new Map<string, EtcdError>(Object.entries(etcdErrors).map(([name, error]) => [sameName(name), error]));
  assert.equal(table.length, 63);
  for (const [name, code, message] of table) {
    assert.deepEqual(ours.get(sameName(name)), { code, message: `etcdserver: ${message}` }, name);
    ours.delete(sameName(name));
  }
  assert.deepEqual([...ours.keys()], []);
});
