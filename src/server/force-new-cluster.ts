// --force-new-cluster: this member's log goes on as that of a cluster with nobody else. As etcd does it (bootstrap.go, storage/util.go):
// what is not known to be committed is dropped, and changes that remove all other members are put behind the rest, committed by decree,
// in the same term. They are applied like any others, so that database, membership and raft follow them. A member that is a learner is
// promoted first (etcd's fails: it would be a cluster that nobody votes in).
//
// For the last member that is left of a cluster. Others that still run do not hear of it: they must not.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { forcedChangesWaitMs } from '../cluster-limits.ts';
import { hexId } from '../membership/cluster.ts';
import { decode, encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ConfChangeType, type ConfState, type Entry, EntryType } from '../raft/types.ts';
import { encodeMember } from '../snapshot/schema.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { WalHardState } from '../wal/format.ts';
import type { WalReplay } from '../wal/replay.ts';
import type { Wal } from '../wal/wal.ts';
import { promotionOf } from './membership-change.ts';

const CALLER = 'server/force-new-cluster.ts';
/** Of a member that its own log does not know: etcd's. It is told its real one by `etcdctl member update`. */
const unknownPeerUrl = 'http://localhost:2380';

/** Of the database, at `index`. */
export interface AppliedState {
  readonly index: number;
  readonly confState: ConfState;
}

/** The log that raft begins with, durable. */
export function forceNewCluster(wal: Wal, replay: WalReplay, applied: AppliedState, logger: Logger): WalReplay {
  const self = wal.metadata.memberId;
  const { hardState } = replay;
  // What the database holds was committed, even if the log's last note of the commit index is older.
  const committed = Math.max(hardState.commit, applied.index);
  const entries = replay.entries.filter(({ index }) => index <= committed);
  if (entries.length < replay.entries.length) {
    logger.info(CALLER, 'discarding uncommitted WAL entries', {
      'entry-index': committed + 1,
      'commit-index-from-wal': committed,
      'number-of-discarded-entries': replay.entries.length - entries.length,
    });
  }
  const { term } = hardState;
  const forced = changes(effectiveMembers(applied, entries), self).map((data, position): Entry => {
    return { term, index: committed + 1 + position, type: EntryType.confChange, data };
  });
  const state: WalHardState = { ...hardState, commit: committed + forced.length };
  if (forced.length > 0) makeDurable(wal, state, forced);
  logger.info(CALLER, 'forcing restart member', {
    'cluster-id': hexId(wal.metadata.clusterId),
    'local-member-id': hexId(self),
    'wal-commit-index': hardState.commit,
    'commit-index': state.commit,
  });
  const all = [...entries, ...forced];
  const last = all.at(-1);
  return {
    ...replay,
    hardState: state,
    entries: all,
    last: last === undefined ? replay.start : { index: last.index, term: last.term },
  };
}

interface EffectiveMembers {
  readonly voters: ReadonlySet<bigint>;
  readonly learners: ReadonlySet<bigint>;
}

/** Who votes and who learns, when all of the entries are applied. */
function effectiveMembers({ index, confState }: AppliedState, entries: readonly Entry[]): EffectiveMembers {
  const learners = new Set([...confState.learners, ...confState.learnersNext]);
  const voters = new Set([...confState.voters, ...confState.votersOutgoing].filter((id) => !learners.has(id)));
  for (const entry of entries) {
    if (entry.type !== EntryType.confChange || entry.index <= index) continue;
    const change = decode(ConfChange, entry.data);
    if (change === undefined) throw new FatalError(ExitCode.walCorrupt, 'a committed membership change does not parse');
    const { type = ConfChangeType.addNode, nodeId = 0n } = change;
    if (type === ConfChangeType.updateNode) continue;
    voters.delete(nodeId);
    learners.delete(nodeId);
    if (type === ConfChangeType.addNode) voters.add(nodeId);
    else if (type === ConfChangeType.addLearnerNode) learners.add(nodeId);
  }
  return { voters, learners };
}

/** Itself first, if it does not vote yet: there is never a cluster of nobody. */
function changes({ voters, learners }: EffectiveMembers, self: bigint): Buffer[] {
  const removals = [...voters, ...learners]
    .filter((id) => id !== self)
    .sort((a, b) => (a < b ? -1 : 1))
    .map((id) => encode(ConfChange, { type: ConfChangeType.removeNode, nodeId: id }));
  if (voters.has(self)) return removals;
  const added = { id: self, peerUrls: [unknownPeerUrl], isLearner: false, name: '', clientUrls: [] };
  const context = learners.has(self) ? promotionOf(self) : encodeMember(added);
  return [encode(ConfChange, { type: ConfChangeType.addNode, nodeId: self, context }), ...removals];
}

function makeDurable(wal: Wal, state: WalHardState, entries: readonly Entry[]): void {
  wal.append(state, entries);
  const isDurable = wal.waitDurable(
    wal.sync(() => {}),
    forcedChangesWaitMs,
  );
  if (!isDurable) throw new FatalError(ExitCode.walWrite, `the log was not written in ${forcedChangesWaitMs} ms`);
}
