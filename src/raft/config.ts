// What a raft member is started with. Times are in ticks of the driver; bytes are counted by entryBytes(). Validation
// throws, as a wrong value is a bug of the caller: flags are checked with etcd's messages in src/config.

import { assert } from '../base/assert.ts';
import type { Storage } from './storage.ts';
import type { ConfChangeV2, Entry, NodeId } from './types.ts';
import { NONE } from './types.ts';

/**
 * How reads are made linearizable: by a round of heartbeats, or by trusting the clock that measures the leader's lease.
 */
export const ReadOnlyOption = { safe: 0, leaseBased: 1 } as const;
export type ReadOnlyOption = (typeof ReadOnlyOption)[keyof typeof ReadOnlyOption];

/**
 * Lines about rare events (elections, snapshots, configuration), in the words and at the levels of etcd-io/raft: people match them. Those of
 * single messages are built only if debugEnabled. What is different: docs/differences.md.
 */
export interface RaftLogger {
  readonly debugEnabled: boolean;
  debug(line: string): void;
  info(line: string): void;
  warn(line: string): void;
}

export interface RaftConfig {
  readonly id: NodeId;
  /** A follower that hears nothing for [electionTick, 2 * electionTick - 1] ticks campaigns. */
  readonly electionTick: number;
  readonly heartbeatTick: number;
  readonly storage: Storage;
  /**
   * The last entry that the state machine holds already; 0 when it starts from the storage's snapshot or from nothing.
   */
  readonly applied: number;
  /** Bound of the entries in one append message; one entry is always sent. */
  readonly maxSizePerMessage: number;
  /** Bound of committed entries handed out and not yet applied; one entry is always given. */
  readonly maxCommittedSizePerReady: number;
  /** A leader drops proposals beyond this many bytes not yet applied. Infinity for none. */
  readonly maxUncommittedEntriesSize: number;
  /** Append messages sent to one follower and not yet answered. */
  readonly maxInflightMessages: number;
  /** The same in bytes of requests. Infinity for none. */
  readonly maxInflightBytes: number;
  /** A leader that does not hear from a majority for an election timeout steps down; votes wait for its lease. */
  readonly checkQuorum: boolean;
  /** Ask before campaigning, so that a member that was cut off does not disturb the others with its term. */
  readonly preVote: boolean;
  readonly readOnlyOption: ReadOnlyOption;
  /** A uniform integer in [0, n). */
  readonly random: (n: number) => number;
  readonly logger: RaftLogger;
  /** A follower drops proposals in place of passing them to the leader. */
  readonly disableProposalForwarding: boolean;
  /** Reads an entry of type confChange or confChangeV2; null when its bytes are none. */
  readonly decodeConfChange: (entry: Entry) => ConfChangeV2 | null;
}

export function assertConfig(config: RaftConfig): void {
  assert(config.id !== NONE, 'a member needs an id');
  assert(config.heartbeatTick > 0, 'heartbeatTick must be positive');
  assert(config.electionTick > config.heartbeatTick, 'electionTick must exceed heartbeatTick');
  assert(config.maxSizePerMessage >= 0, 'maxSizePerMessage must not be negative');
  assert(config.maxCommittedSizePerReady > 0, 'maxCommittedSizePerReady must be positive');
  assert(config.maxUncommittedEntriesSize > 0, 'maxUncommittedEntriesSize must be positive');
  assert(config.maxInflightMessages > 0, 'maxInflightMessages must be positive');
  assert(config.maxInflightBytes >= config.maxSizePerMessage, 'maxInflightBytes must hold one message');
  assert(config.readOnlyOption === ReadOnlyOption.safe || config.checkQuorum, 'lease-based reads need checkQuorum');
}
