// raftpb.ConfChange, as etcd's log and peers carry it. Not its context (snapshot/schema.ts) and not raft's messages, which have a codec of
// their own (peer/raft-message.ts); a ConfChangeV2 no member of etcd proposes.

/** raftpb.ConfChange (proto2: every field is written, zero or not). */
export const ConfChange = {
  id: { no: 1, kind: 'uint64', optional: true },
  type: { no: 2, kind: 'enum', optional: true },
  nodeId: { no: 3, kind: 'uint64', optional: true },
  context: { no: 4, kind: 'bytes', optional: true },
} as const;
