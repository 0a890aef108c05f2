// raftpb.ConfChange and ConfChangeV2 for the groups of raft-member.ts, in the bytes that Go's marshaller makes of them.

import { decode, encode } from '../proto/message.ts';
import { ConfChange as ConfChangeSchema } from '../proto/raftpb.ts';
import {
  type ConfChange,
  type ConfChangeTransition,
  type ConfChangeType,
  type ConfChangeV2,
  confChangeAsV2,
  type Entry,
  EntryType,
  NO_BYTES,
} from '../raft/types.ts';

const ConfChangeSingleSchema = {
  type: { no: 1, kind: 'enum', optional: true },
  nodeId: { no: 2, kind: 'uint64', optional: true },
} as const;

const ConfChangeV2Schema = {
  transition: { no: 1, kind: 'enum', optional: true },
  changes: { no: 2, kind: ConfChangeSingleSchema, repeated: true },
  context: { no: 3, kind: 'bytes', optional: true },
} as const;

export function encodeConfChange(change: ConfChange): Buffer {
  return encode(ConfChangeSchema, { type: change.type, nodeId: change.nodeId, context: change.context });
}

/** The transition auto is left out: the change that leaves a joint configuration is no bytes at all. */
export function encodeConfChangeV2(change: ConfChangeV2): Buffer {
  const transition = change.transition === 0 ? undefined : change.transition;
  const context = change.context.length === 0 ? undefined : change.context;
  return encode(ConfChangeV2Schema, { transition, changes: change.changes, context });
}

export function decodeConfChange(entry: Entry): ConfChangeV2 | null {
  if (entry.type === EntryType.confChange) {
    const change = decode(ConfChangeSchema, entry.data);
    if (change === undefined) return null;
    const type = (change.type ?? 0) as ConfChangeType;
    return confChangeAsV2({ type, nodeId: change.nodeId ?? 0n, context: change.context ?? NO_BYTES });
  }
  const change = decode(ConfChangeV2Schema, entry.data);
  if (change === undefined) return null;
  return {
    transition: (change.transition ?? 0) as ConfChangeTransition,
    changes: change.changes.map((one) => ({ type: (one.type ?? 0) as ConfChangeType, nodeId: one.nodeId ?? 0n })),
    context: change.context ?? NO_BYTES,
  };
}
