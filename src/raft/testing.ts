// What the unit tests of this folder share: entries, a configuration with small bounds, a driver that persists and
// applies at once. Not for production code.

import { type RaftConfig, type RaftLogger, ReadOnlyOption } from './config.ts';
import { MemoryStorage } from './memory-storage.ts';
import type { RawNode, Ready } from './raw-node.ts';
import { type Entry, EntryType, type Message, NO_BYTES, type NodeId } from './types.ts';

export const silent: RaftLogger = { debugEnabled: false, debug: () => {}, info: () => {}, warn: () => {} };

export function entry(term: number, index: number, data = ''): Entry {
  return { term, index, type: EntryType.normal, data: data === '' ? NO_BYTES : Buffer.from(data) };
}

/** Entries of these terms with ascending indexes from `first` on. */
export function entries(first: number, ...terms: number[]): Entry[] {
  return terms.map((term, i) => entry(term, first + i));
}

export function voterStorage(...voters: NodeId[]): MemoryStorage {
  return new MemoryStorage({ voters, learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false });
}

export function testConfig(storage: MemoryStorage, changes: Partial<RaftConfig> = {}): RaftConfig {
  return {
    id: 1n,
    electionTick: 10,
    heartbeatTick: 1,
    storage,
    applied: 0,
    maxSizePerMessage: 1024 * 1024,
    maxCommittedSizePerReady: 1024 * 1024,
    maxUncommittedEntriesSize: Number.POSITIVE_INFINITY,
    maxInflightMessages: 256,
    maxInflightBytes: Number.POSITIVE_INFINITY,
    checkQuorum: false,
    preVote: false,
    readOnlyOption: ReadOnlyOption.safe,
    random: () => 0,
    logger: silent,
    disableProposalForwarding: false,
    decodeConfChange: () => null,
    ...changes,
  };
}

/** Handles one Ready as the simplest driver would, and returns it. */
export function handleReady(node: RawNode, storage: MemoryStorage): Ready {
  const ready = node.ready();
  if (ready.snapshot !== null) storage.applySnapshot(ready.snapshot);
  storage.append(ready.entries);
  if (ready.hardState !== null) storage.setHardState(ready.hardState);
  node.persisted(ready.sequence);
  if (ready.snapshot !== null) node.applied(ready.snapshot.meta.index);
  const last = ready.committedEntries[ready.committedEntries.length - 1];
  if (last !== undefined) node.applied(last.index);
  return ready;
}

/** All messages until nothing is left to do. */
export function settle(node: RawNode, storage: MemoryStorage): Message[] {
  const messages: Message[] = [];
  while (node.hasReady()) {
    const ready = handleReady(node, storage);
    messages.push(...ready.messages, ...ready.messagesAfterPersist);
  }
  node.checkInvariants();
  return messages;
}
