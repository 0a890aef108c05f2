// A committed membership change → its effect on the membership and on the way to the peers, or etcd's refusal: what was right when it
// was proposed may not be any more (ValidateConfigurationChange, applyConfChange). Raft's own configuration follows in
// state-machine.ts, by what this returns.

import { assert } from '../base/assert.ts';
import { assertApplicable } from '../base/fatal.ts';
import type { Member, Refusal } from '../membership/cluster.ts';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import {
  ConfChangeType,
  type ConfChangeV2,
  confChangeAsV2,
  type Entry,
  EntryType,
  NO_BYTES,
  NONE,
} from '../raft/types.ts';
import { decodeMember } from '../snapshot/schema.ts';
import type { MemberParts } from './member-parts.ts';
import type { MembershipLog } from './membership-log.ts';

export interface AppliedChange {
  /** Who proposed it waits for this; 0n for those that a new cluster begins with. */
  readonly id: bigint;
  /** The entry's, which alone says whose it is when two members have taken the same id. */
  readonly data: Buffer;
  readonly type: ConfChangeType;
  readonly nodeId: bigint;
  /** Null: it took effect. */
  readonly refusal: Refusal | null;
  /** For raft; void when it was refused. */
  readonly forRaft: ConfChangeV2;
}

/** Applies the change of `entry`. */
export function applyMembershipChange(parts: MemberParts, log: MembershipLog, entry: Entry): AppliedChange {
  assert(entry.type === EntryType.confChange, 'etcd proposes no ConfChangeV2');
  const change = decode(ConfChange, entry.data);
  assertApplicable(change !== undefined, entry, 'is no change of the membership');
  const id = change.id ?? 0n;
  const nodeId = change.nodeId ?? NONE;
  const context = change.context ?? NO_BYTES;
  const type = (change.type ?? 0) as ConfChangeType;
  assertApplicable(isSoundChange(type, nodeId, context), entry, 'changes the membership by no member');
  const refusal = take(parts, log, type, nodeId, context);
  if (refusal !== null) log.refusedAtApply(refusal.reason);
  const forRaft = confChangeAsV2({ type, nodeId: refusal === null ? nodeId : NONE, context });
  return { id, data: entry.data, type, nodeId, refusal, forRaft };
}

/**
 * Whether there is any state to which the change could be applied. Asked before it gets into the log: there it would end every member that
 * comes to it, and again at every start.
 */
export function isSoundChange(type: number, nodeId: bigint, context: Buffer): boolean {
  if (nodeId === NONE) return false;
  if (type === ConfChangeType.removeNode) return true;
  const known = type === ConfChangeType.addNode || type === ConfChangeType.addLearnerNode;
  return (known || type === ConfChangeType.updateNode) && decodeMember(context)?.id === nodeId;
}

/** Checks the change and, when nothing speaks against it, does it. */
function take(
  parts: MemberParts,
  log: MembershipLog,
  type: ConfChangeType,
  nodeId: bigint,
  context: Buffer,
): Refusal | null {
  if (type === ConfChangeType.removeNode) return remove(parts, log, nodeId);
  const member = decodeMember(context);
  assert(member !== null && member.id === nodeId, 'a sound change has a member');
  if (type === ConfChangeType.updateNode) return update(parts, log, member);
  if (isPromotion(context)) return promote(parts, log, nodeId);
  return add(parts, log, member);
}

/** The context of a promotion: etcd's ConfigChangeContext with nothing but the id in its member. */
export function promotionOf(id: bigint): Buffer {
  return Buffer.from(`{"id":${id},"peerURLs":null,"isPromote":true}`);
}

/** Adding and promoting are the same type of change. `context` is that of a sound one. */
export function isPromotion(context: Buffer): boolean {
  return (JSON.parse(context.toString()) as { isPromote?: unknown }).isPromote === true;
}

function add({ cluster, transport, id, learnersMax }: MemberParts, log: MembershipLog, member: Member): Refusal | null {
  const refusal = cluster.checkAdd(member, learnersMax);
  if (refusal !== null) return refusal;
  cluster.add(member);
  log.added(member);
  if (member.id !== id) transport.addPeer(member.id, member.peerUrls);
  return null;
}

function promote({ cluster }: MemberParts, log: MembershipLog, id: bigint): Refusal | null {
  const refusal = cluster.checkPromote(id);
  if (refusal !== null) return refusal;
  cluster.promote(id);
  log.promoted(id);
  return null;
}

/** The peer URLs alone; the rest of what the change carries is not looked at, as in etcd. */
function update({ cluster, transport, id }: MemberParts, log: MembershipLog, member: Member): Refusal | null {
  const refusal = cluster.checkUpdate(member.id, member.peerUrls);
  if (refusal !== null) return refusal;
  cluster.updatePeerUrls(member.id, member.peerUrls);
  log.updated(member.id, member.peerUrls, member.isLearner);
  if (member.id !== id) transport.updatePeer(member.id, member.peerUrls);
  return null;
}

/** Itself too: the member then ends, when it has told the others. */
function remove({ cluster, transport, id: self }: MemberParts, log: MembershipLog, id: bigint): Refusal | null {
  const refusal = cluster.checkRemove(id);
  if (refusal !== null) return refusal;
  log.removed(cluster.member(id)!);
  cluster.remove(id);
  if (id !== self) transport.removePeer(id);
  return null;
}
