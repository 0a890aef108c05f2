// Raft over what a start has read: the log's entries and hard state, and the configuration that the database has, as of its consistent
// index. Which entries these are, and whether they fit together, is bootstrap.ts's.

import type { Backend } from '../backend/backend.ts';
import { assertSound } from '../base/fatal.ts';
import { raftInFlightBytesMax } from '../cluster-limits.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { Random } from '../io/random.ts';
import {
  applyHandedOutBytesMax,
  raftMessageBytesMax,
  raftMessagesInFlightMax,
  raftUncommittedBytesMax,
} from '../limits.ts';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ReadOnlyOption } from '../raft/config.ts';
import { MemoryStorage } from '../raft/memory-storage.ts';
import { RawNode } from '../raft/raw-node.ts';
import {
  type ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  confChangeAsV2,
  EMPTY_CONF_STATE,
  type Entry,
  EntryType,
  NO_BYTES,
} from '../raft/types.ts';
import { decodeConfState, MetaKey } from '../snapshot/schema.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { WalReplay } from '../wal/replay.ts';
import { isSoundChange } from './membership-change.ts';
import { raftLogger } from './raft-log.ts';

export interface RaftOptions {
  readonly config: ServerConfig;
  readonly logger: Logger;
  readonly random: Random;
  readonly id: bigint;
  readonly replay: WalReplay;
  readonly backend: Backend;
}

export function openRaft({ config, logger, random, id, replay, backend }: RaftOptions): {
  readonly raft: RawNode;
  readonly storage: MemoryStorage;
} {
  const confState = readConfState(backend);
  const storage = new MemoryStorage(confState);
  if (replay.start.index > 0) {
    storage.applySnapshot({ meta: { confState, index: replay.start.index, term: replay.start.term }, data: NO_BYTES });
  }
  storage.append(replay.entries);
  const { hardState } = replay;
  // What the database holds was committed, even if the log's last note of the commit index is older.
  storage.setHardState({ ...hardState, commit: Math.max(hardState.commit, backend.consistentIndex) });
  const raft = new RawNode({
    id,
    electionTick: config.electionTickCount,
    heartbeatTick: 1,
    storage,
    applied: backend.consistentIndex,
    maxSizePerMessage: raftMessageBytesMax,
    maxCommittedSizePerReady: applyHandedOutBytesMax,
    maxUncommittedEntriesSize: raftUncommittedBytesMax,
    maxInflightMessages: raftMessagesInFlightMax,
    maxInflightBytes: raftInFlightBytesMax,
    checkQuorum: true,
    preVote: config.preVote,
    readOnlyOption: ReadOnlyOption.safe,
    random: (n) => random.below(n),
    logger: raftLogger(logger),
    disableProposalForwarding: false,
    decodeConfChange,
  });
  return { raft, storage };
}

/** Who votes and who learns, as of the last entry that the database holds. */
export function readConfState(backend: Backend): ConfState {
  const bytes = backend.bucketGet('meta', MetaKey.confState);
  if (bytes === undefined) return EMPTY_CONF_STATE;
  const confState = decodeConfState(bytes);
  assertSound(confState !== null, 'its confState does not parse');
  return confState;
}

function decodeConfChange(entry: Entry): ConfChangeV2 | null {
  if (entry.type !== EntryType.confChange) return null;
  const change = decode(ConfChange, entry.data);
  if (change === undefined) return null;
  const { type = 0, nodeId = 0n, context = NO_BYTES } = change;
  if (!isSoundChange(type, nodeId, context)) return null;
  return confChangeAsV2({ type: type as ConfChangeType, nodeId, context });
}
