// raftpb.ConfChange and its context, as etcd's log and peers carry them. Messages and ConfChangeV2 come with the peers (#4).

/** raftpb.ConfChange (proto2: every field is written, zero or not). */
export const ConfChange = {
  id: { no: 1, kind: 'uint64', optional: true },
  type: { no: 2, kind: 'enum', optional: true },
  nodeId: { no: 3, kind: 'uint64', optional: true },
  context: { no: 4, kind: 'bytes', optional: true },
} as const;
