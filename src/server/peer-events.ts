// What comes from the peers, for the member: their messages go to raft, what happened to ours is reported to raft. Whom a
// message is from and for the transport has looked at.

import type { PeerEvents, SnapshotReceipt } from '../peer/peer-transport.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { Member } from './member.ts';

/** `member` is asked only when something came: the transport is made before it. */
export function peerEvents(member: () => Member): PeerEvents {
  return {
    message: (message: Message) => member().receive(message),
    unreachable: (id: NodeId) => member().noteUnreachable(id),
    snapshotSent: (id: NodeId, succeeded: boolean) => member().noteSnapshotSent(id, succeeded),
    snapshotArrives: (message: Message): SnapshotReceipt | null => member().snapshots.arrives(message),
    isRemoved: (id: NodeId) => member().parts.cluster.isRemoved(id),
    refused: (reason: string, by: NodeId) => member().removal.refused(reason, by),
  };
}
