// The values that enter and leave the raft core: entries, hard state, configuration, snapshots and messages. The shapes
// and numbers are raftpb's (go.etcd.io/raft/v3 v3.7.0), so that src/peer can encode them field by field; no bytes are
// made here. Indexes and terms are numbers (asserted safe at the wire), node ids are full 64-bit bigints. Everything
// handed over is read-only for both sides: entries and buffers are shared, never copied.

import { assert } from '../base/assert.ts';

export type NodeId = bigint;

/** No node: no leader, no vote, no transferee. */
export const NONE: NodeId = 0n;

/** Stands for every absent `bytes` field, so that a field never changes its type. */
export const NO_BYTES: Buffer = Buffer.alloc(0);

/** raftpb.EntryType. */
export const EntryType = { normal: 0, confChange: 1, confChangeV2: 2 } as const;
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly type: EntryType;
  /** The request; empty in the entry that a new leader appends and in the one that leaves a joint configuration. */
  readonly data: Buffer;
}

/** What a member must remember over a crash before it answers (Raft figure 2, "persistent state"). */
export interface HardState {
  readonly term: number;
  readonly vote: NodeId;
  /** Only a lower bound after a crash: a change of `commit` alone needs no sync. */
  readonly commit: number;
}

export const EMPTY_HARD_STATE: HardState = { term: 0, vote: NONE, commit: 0 };

/** What only lives in memory: who leads, and this member's role. */
export interface SoftState {
  readonly lead: NodeId;
  readonly state: RaftState;
}

/** raft's StateType. */
export const RaftState = { follower: 0, candidate: 1, leader: 2, preCandidate: 3 } as const;
export type RaftState = (typeof RaftState)[keyof typeof RaftState];

/** Member lists are ascending. `votersOutgoing` is empty unless the configuration is joint. */
export interface ConfState {
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
  readonly votersOutgoing: readonly NodeId[];
  readonly learnersNext: readonly NodeId[];
  readonly autoLeave: boolean;
}

export const EMPTY_CONF_STATE: ConfState = {
  voters: [],
  learners: [],
  votersOutgoing: [],
  learnersNext: [],
  autoLeave: false,
};

export interface SnapshotMeta {
  readonly confState: ConfState;
  /** The last entry whose effect the snapshot holds. */
  readonly index: number;
  readonly term: number;
}

export interface Snapshot {
  readonly meta: SnapshotMeta;
  readonly data: Buffer;
}

/** raftpb.ConfChangeType. */
export const ConfChangeType = { addNode: 0, removeNode: 1, updateNode: 2, addLearnerNode: 3 } as const;
export type ConfChangeType = (typeof ConfChangeType)[keyof typeof ConfChangeType];

/** raftpb.ConfChangeTransition: how a change that needs joint consensus leaves the joint configuration. */
export const ConfChangeTransition = { auto: 0, jointImplicit: 1, jointExplicit: 2 } as const;
export type ConfChangeTransition = (typeof ConfChangeTransition)[keyof typeof ConfChangeTransition];

export interface ConfChangeSingle {
  readonly type: ConfChangeType;
  /** 0n is skipped: etcd's way to void a change that its membership rules refuse at apply time. */
  readonly nodeId: NodeId;
}

/** raftpb.ConfChange, the form that etcd's members propose. */
export interface ConfChange {
  readonly type: ConfChangeType;
  readonly nodeId: NodeId;
  readonly context: Buffer;
}

export interface ConfChangeV2 {
  readonly transition: ConfChangeTransition;
  /** None, with transition auto: leave the joint configuration. */
  readonly changes: readonly ConfChangeSingle[];
  readonly context: Buffer;
}

export const LEAVE_JOINT: ConfChangeV2 = { transition: ConfChangeTransition.auto, changes: [], context: NO_BYTES };

export function confChangeAsV2(change: ConfChange): ConfChangeV2 {
  return {
    transition: ConfChangeTransition.auto,
    changes: [{ type: change.type, nodeId: change.nodeId }],
    context: change.context,
  };
}

/** raftpb.MessageType. The local ones (hup, beat, ...) are method calls here and refused from the network. */
export const MessageType = {
  hup: 0,
  beat: 1,
  prop: 2,
  app: 3,
  appResp: 4,
  vote: 5,
  voteResp: 6,
  snap: 7,
  heartbeat: 8,
  heartbeatResp: 9,
  unreachable: 10,
  snapStatus: 11,
  checkQuorum: 12,
  transferLeader: 13,
  timeoutNow: 14,
  readIndex: 15,
  readIndexResp: 16,
  preVote: 17,
  preVoteResp: 18,
  storageAppend: 19,
  storageAppendResp: 20,
  storageApply: 21,
  storageApplyResp: 22,
  forgetLeader: 23,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

/** raftpb.Message. Every field is always there (zero values as in protobuf), so that all messages share one shape. */
export interface Message {
  type: MessageType;
  to: NodeId;
  from: NodeId;
  /** 0 in messages that belong to no term: forwarded proposals and read requests. */
  term: number;
  logTerm: number;
  index: number;
  entries: readonly Entry[];
  commit: number;
  vote: NodeId;
  snapshot: Snapshot | null;
  reject: boolean;
  rejectHint: number;
  context: Buffer;
}

const NO_ENTRIES: readonly Entry[] = [];

export function newMessage(type: MessageType, to: NodeId): Message {
  return {
    type,
    to,
    from: NONE,
    term: 0,
    logTerm: 0,
    index: 0,
    entries: NO_ENTRIES,
    commit: 0,
    vote: NONE,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context: NO_BYTES,
  };
}

/** A read that may be answered once the state machine has applied `index`. */
export interface ReadState {
  readonly index: number;
  /** The bytes given to readIndex(), by which the caller finds its request. */
  readonly context: Buffer;
}

/**
 * Type, term, index and the data's tag and length in protobuf: at most 2 + 2 * 9 + 4 bytes for values that we allow.
 */
const ENTRY_OVERHEAD_BYTES = 24;

/** What an entry counts against the byte bounds of messages and Readies: an upper bound of its encoded size. */
export function entryBytes(entry: Entry): number {
  return entry.data.length + ENTRY_OVERHEAD_BYTES;
}

/** How many leading entries of `entries[start, end)` fit into `bytesMax`; at least one, so that progress is certain. */
export function countWithin(entries: readonly Entry[], start: number, end: number, bytesMax: number): number {
  assert(start < end, 'no entries to limit');
  let bytes = 0;
  for (let i = start; i < end; i++) {
    bytes += entryBytes(entries[i]!);
    if (bytes > bytesMax && i > start) return i - start;
  }
  return end - start;
}

/** The size of the requests alone: what counts against the bound of uncommitted data. Empty entries are free. */
export function payloadBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) bytes += entries[i]!.data.length;
  return bytes;
}
