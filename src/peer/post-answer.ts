// What a peer answers to a post of raft's pipeline or of a snapshot: taken with 204, and else why not, in etcd's words.

import type { NodeId } from '../raft/types.ts';
import { idText, type TransportContext } from './transport-context.ts';

const CALLER = 'peer/post-answer.ts';

export const memberRemoved = 'the member has been permanently removed from the cluster';
export const incompatibleVersion = 'incompatible version';
export const clusterIdMismatch = 'cluster ID mismatch';

/** In a 403, as etcd words it (inbox.ts). */
export const removedSender = 'cannot process message from removed member';

/** Null: it took it. memberRemoved is for the member to end itself. */
export function errorOfPost(
  context: TransportContext,
  peerId: NodeId,
  url: string,
  status: number,
  remoteCluster: string,
  body: string,
): string | null {
  if (status === 204) return null;
  // etcd ends itself at any 403: also when it only knows an address by the id of a member that was there before.
  if (status === 403 && body.includes(removedSender)) return memberRemoved;
  const { logger } = context;
  const remote = { 'remote-peer-id': idText(peerId) };
  if (status === 412) {
    const reason = body.replace(/\n$/, '');
    if (reason === incompatibleVersion) {
      logger.error(CALLER, 'request sent was ignored by peer', remote);
      return reason;
    }
    if (reason === clusterIdMismatch) {
      logger.error(CALLER, 'request sent was ignored due to cluster ID mismatch', {
        ...remote,
        'remote-peer-cluster-id': remoteCluster,
        'local-member-cluster-id': context.clusterText,
      });
      return reason;
    }
    return `unhandled error ${JSON.stringify(body)} when precondition failed`;
  }
  return `unexpected http status ${statusText(status)} while posting to ${JSON.stringify(url)}`;
}

const statusTexts: ReadonlyMap<number, string> = new Map([
  [200, 'OK'],
  [400, 'Bad Request'],
  [403, 'Forbidden'],
  [404, 'Not Found'],
  [405, 'Method Not Allowed'],
  [410, 'Gone'],
  [500, 'Internal Server Error'],
  [503, 'Service Unavailable'],
]);

export function statusText(status: number): string {
  return statusTexts.get(status) ?? String(status);
}
