// How requests enter the log of a leader, or why they do not. Refusals are values: the server turns them into statuses.

import { isJoint, leavesJoint, toConfState } from './conf-change.ts';
import { describeConfChange, describeConfState, hex } from './describe.ts';
import type { Raft } from './raft.ts';
import {
  type ConfChangeV2,
  type Entry,
  EntryType,
  LEAVE_JOINT,
  type Message,
  MessageType,
  NO_BYTES,
  NONE,
  newMessage,
  payloadBytes,
  RaftState,
} from './types.ts';

export const ProposeStatus = { accepted: 0, forwarded: 1, dropped: 2 } as const;
export type ProposeStatus = (typeof ProposeStatus)[keyof typeof ProposeStatus];

export type DropReason =
  | 'none'
  | 'no leader'
  | 'forwarding disabled'
  | 'not a member'
  | 'leadership transfer in progress'
  | 'too many uncommitted bytes'
  | 'configuration change pending'
  | 'must leave the joint configuration first'
  | 'not in a joint configuration'
  | 'malformed configuration change';

/** Owned by the node and overwritten by its next proposal: read it at once. */
export interface ProposeResult {
  status: ProposeStatus;
  /** Of the first entry, if accepted; else 0. A batch has the indexes from here on. */
  index: number;
  term: number;
  reason: DropReason;
}

export function newProposeResult(): ProposeResult {
  return { status: ProposeStatus.dropped, index: 0, term: 0, reason: 'none' };
}

/** Hot: 0.1 us and one entry a proposal (propose.bench.ts). A batch is taken whole or not at all. */
export function propose(raft: Raft, datas: readonly Buffer[], result: ProposeResult): void {
  if (raft.state !== RaftState.leader) {
    passOn(raft, EntryType.normal, datas, result);
    return;
  }
  let bytes = 0;
  for (let i = 0; i < datas.length; i++) bytes += datas[i]!.length;
  const reason = refusal(raft, bytes);
  if (reason !== 'none') {
    setDropped(result, reason);
    return;
  }
  setAccepted(result, raft);
  for (let i = 0; i < datas.length; i++) raft.appendOwn(EntryType.normal, datas[i]!);
  raft.broadcastAppend();
}

/** The same for one request. */
export function proposeOne(raft: Raft, type: EntryType, data: Buffer, result: ProposeResult): void {
  if (raft.state !== RaftState.leader) {
    passOn(raft, type, [data], result);
    return;
  }
  const reason = refusal(raft, data.length);
  if (reason !== 'none') {
    setDropped(result, reason);
    return;
  }
  setAccepted(result, raft);
  raft.appendOwn(type, data);
  raft.broadcastAppend();
}

/**
 * `data` is an encoded ConfChange or ConfChangeV2, by `type`; empty with confChangeV2: leave the joint configuration.
 */
export function proposeConfChange(raft: Raft, type: EntryType, data: Buffer, result: ProposeResult): void {
  if (raft.state === RaftState.leader) {
    const reason = checkConfChange(raft, type, data);
    if (reason !== 'none') {
      setDropped(result, reason);
      return;
    }
  }
  proposeOne(raft, type, data, result);
  if (result.status === ProposeStatus.accepted) raft.pendingConfIndex = result.index;
}

/**
 * Leaves the joint configuration after it was applied. Tried again at each applied entry while a transfer is running.
 */
export function proposeAutoLeave(raft: Raft, result: ProposeResult): void {
  proposeConfChange(raft, EntryType.confChangeV2, NO_BYTES, result);
  if (result.status !== ProposeStatus.accepted) return;
  const joint = describeConfState(toConfState(raft.tracker.configuration));
  raft.logger.info(`${hex(raft.id)} initiating automatic transition out of joint configuration ${joint}`);
}

/** Proposals of a follower. Nobody waits for an answer here: the follower sees its entries come back, or not. */
export function proposeForwarded(raft: Raft, message: Message): void {
  if (message.entries.length === 0 || unavailability(raft) !== 'none') return;
  const pendingConfIndex = raft.pendingConfIndex;
  const entries = withoutRefusedConfChanges(raft, message.entries);
  // Counted as they are appended: what is refused here is never applied, and would be counted until the term ends.
  if (!raft.reserveUncommitted(payloadBytes(entries))) {
    raft.pendingConfIndex = pendingConfIndex;
    return;
  }
  for (let i = 0; i < entries.length; i++) raft.appendOwn(entries[i]!.type, entries[i]!.data);
  raft.broadcastAppend();
}

/** The same list when it has no configuration change. One that is not refused is pending from now on. */
function withoutRefusedConfChanges(raft: Raft, entries: readonly Entry[]): readonly Entry[] {
  if (entries.every((entry) => entry.type === EntryType.normal)) return entries;
  return entries.map((entry, i) => {
    if (entry.type === EntryType.normal) return entry;
    if (checkConfChange(raft, entry.type, entry.data) === 'none') {
      raft.pendingConfIndex = raft.log.lastIndex + 1 + i;
      return entry;
    }
    // An empty entry in its place, so that the others of the message keep their order.
    return { term: 0, index: 0, type: EntryType.normal, data: NO_BYTES };
  });
}

/** Tells of a refusal as etcd's leader does, which proposes an empty entry in its place in both cases. */
function checkConfChange(raft: Raft, type: EntryType, data: Buffer): DropReason {
  const change = decode(raft, type, data);
  const reason = confChangeRefusal(raft, change);
  if (reason === 'none') return reason;
  const pending = `possible unapplied conf change at index ${raft.pendingConfIndex} (applied to ${raft.log.applied})`;
  const check = reason === 'configuration change pending' ? pending : (refusalWords.get(reason) ?? reason);
  const at = describeConfState(toConfState(raft.tracker.configuration));
  const what = change === null ? 'that is malformed' : describeConfChange(change);
  raft.logger.info(`${hex(raft.id)} ignoring conf change ${what} at config ${at}: ${check}`);
  return reason;
}

const refusalWords: ReadonlyMap<DropReason, string> = new Map([
  ['must leave the joint configuration first', 'must transition out of joint config first'],
  ['not in a joint configuration', 'not in joint state; refusing empty conf change'],
]);

function decode(raft: Raft, type: EntryType, data: Buffer): ConfChangeV2 | null {
  if (type === EntryType.confChangeV2 && data.length === 0) return LEAVE_JOINT;
  return raft.config.decodeConfChange({ term: raft.term, index: raft.log.lastIndex + 1, type, data });
}

/** Best effort, as the configuration in force may trail the log; what slips through is impossible at apply time. */
function confChangeRefusal(raft: Raft, change: ConfChangeV2 | null): DropReason {
  if (change === null) return 'malformed configuration change';
  if (raft.pendingConfIndex > raft.log.applied) return 'configuration change pending';
  const joint = isJoint(raft.tracker.configuration);
  // A change of nothing with a transition of its own would enter a joint configuration. etcd-io/raft takes it for one that
  // leaves, accepts it in a joint configuration, and every member panics when it applies it.
  if (joint && !leavesJoint(change)) return 'must leave the joint configuration first';
  if (!joint && change.changes.length === 0) return 'not in a joint configuration';
  return 'none';
}

/** Why a leader takes no proposal at all. */
function unavailability(raft: Raft): DropReason {
  if (raft.tracker.self === null) return 'not a member';
  return raft.leadTransferee === NONE ? 'none' : 'leadership transfer in progress';
}

/** Reserves the bytes if 'none'. */
function refusal(raft: Raft, bytes: number): DropReason {
  const reason = unavailability(raft);
  if (reason !== 'none') return reason;
  return raft.reserveUncommitted(bytes) ? 'none' : 'too many uncommitted bytes';
}

function passOn(raft: Raft, type: EntryType, datas: readonly Buffer[], result: ProposeResult): void {
  if (raft.state !== RaftState.follower || raft.lead === NONE) {
    raft.tellNoLeader('proposal');
    setDropped(result, 'no leader');
    return;
  }
  if (raft.config.disableProposalForwarding) {
    tellNotForwarded(raft);
    setDropped(result, 'forwarding disabled');
    return;
  }
  const message = newMessage(MessageType.prop, raft.lead);
  const entries: Entry[] = [];
  for (let i = 0; i < datas.length; i++) entries.push({ term: 0, index: 0, type, data: datas[i]! });
  message.entries = entries;
  raft.send(message);
  result.status = ProposeStatus.forwarded;
  result.index = 0;
  result.term = 0;
  result.reason = 'none';
}

export function tellNotForwarded(raft: Raft): void {
  const leader = hex(raft.lead);
  raft.logger.info(`${hex(raft.id)} not forwarding to leader ${leader} at term ${raft.term}; dropping proposal`);
}

function setAccepted(result: ProposeResult, raft: Raft): void {
  result.status = ProposeStatus.accepted;
  result.index = raft.log.lastIndex + 1;
  result.term = raft.term;
  result.reason = 'none';
}

function setDropped(result: ProposeResult, reason: DropReason): void {
  result.status = ProposeStatus.dropped;
  result.index = 0;
  result.term = 0;
  result.reason = reason;
}
