// A committed membership change → its effect on the membership. Raft's own configuration follows in state-machine.ts, by what this returns.

import { assert } from '../base/assert.ts';
import type { Cluster, Member } from '../membership/cluster.ts';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ConfChangeType, type ConfChangeV2, confChangeAsV2, type Entry, EntryType, NO_BYTES } from '../raft/types.ts';
import { decodeMember } from '../snapshot/schema.ts';

/** Applies the change of `entry`; the member that it added, if it did, goes to `onAdded`. */
export function applyMembershipChange(cluster: Cluster, entry: Entry, onAdded: (member: Member) => void): ConfChangeV2 {
  assert(entry.type === EntryType.confChange, 'etcd proposes no ConfChangeV2');
  const change = decode(ConfChange, entry.data);
  assert(change !== undefined, 'a committed membership change does not parse');
  const nodeId = change.nodeId ?? 0n;
  const context = change.context ?? NO_BYTES;
  const type = (change.type ?? 0) as ConfChangeType;
  if (type === ConfChangeType.removeNode) cluster.remove(nodeId);
  else {
    const member = decodeMember(context);
    assert(member !== null && member.id === nodeId, 'a membership change has no member');
    if (type === ConfChangeType.updateNode) cluster.updatePeerUrls(nodeId, member.peerUrls);
    else {
      cluster.add(member);
      onAdded(member);
    }
  }
  return confChangeAsV2({ type, nodeId, context });
}
