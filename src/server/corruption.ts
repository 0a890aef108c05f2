// Whether all members hold the same, as etcd looks at it (server/etcdserver/corrupt.go): at a start against the peers, on the leader
// now and then at the current revision (PeriodicCheck), and at revisions that all have compacted (CompactHashCheck), where the
// members that differ from the majority can be named. What is found raises the CORRUPT alarm. How hashes are got is the source's.

import type { CompactionHash } from '../backend/backend.ts';
import { hexId } from '../membership/cluster.ts';
import { quorumOf } from '../membership/readiness.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import type { LogFields, Logger } from '../telemetry/logger.ts';
import type { KeyHash, KeyHashDone } from './key-hash.ts';
import type { MemberChecks } from './member-parts.ts';
import type { ReadWaiter } from './read-queue.ts';

const CALLER = 'server/corruption.ts';

/** What one peer answered: its hash, or why there is none. */
export interface PeerHash {
  readonly id: bigint;
  readonly urls: readonly string[];
  readonly hash: KeyHash | null;
  readonly error: string | null;
}

export interface CorruptionSource {
  readonly id: bigint;
  readonly logger: Logger;
  readonly isLeader: boolean;
  readonly isStopped: boolean;
  /** etcd's ReqTimeout as a log shows it. */
  readonly timeoutText: string;
  hash(revision: number, done: KeyHashDone): void;
  /** What compactions have left. */
  compactionHashes(): readonly CompactionHash[];
  peerHashes(revision: number, done: (answers: readonly PeerHash[]) => void): void;
  /** A read through the quorum. */
  read(waiter: ReadWaiter): void;
  raiseAlarm(memberId: bigint): void;
}

export class Corruption {
  private readonly source: CorruptionSource;
  private readonly checks: MemberChecks;
  private nextCheckMs: number | null = null;
  private nextCompactCheckMs: number | null = null;
  private isChecking = false;
  private isCheckingCompactions = false;
  /** The newest revision of a compaction that all members were found to be equal at. */
  private checkedRevision = 0;

  constructor(source: CorruptionSource, checks: MemberChecks) {
    this.source = source;
    this.checks = checks;
  }

  /** Once a raft tick. An interval begins behind the end of the check before. */
  tick(nowMs: number): void {
    const { corruptMs, compactHashMs } = this.checks;
    if (corruptMs > 0 && !this.isChecking) {
      this.nextCheckMs ??= nowMs + corruptMs;
      if (nowMs >= this.nextCheckMs) {
        this.nextCheckMs = null;
        if (this.source.isLeader) this.periodicCheck();
      }
    }
    if (compactHashMs === 0 || this.isCheckingCompactions) return;
    this.nextCompactCheckMs ??= nowMs + compactHashMs;
    if (nowMs < this.nextCompactCheckMs) return;
    this.nextCompactCheckMs = null;
    if (this.source.isLeader) this.compactHashCheck();
  }

  private warn(message: string, fields: LogFields): void {
    this.source.logger.warn(CALLER, message, fields);
  }

  private hash(revision: number, failed: (error: EtcdError) => void, done: (hash: KeyHash) => void): void {
    this.source.hash(revision, (error, hash, currentRevision) => {
      if (this.source.isStopped) return;
      if (error !== null) failed(error);
      else done({ ...hash!, currentRevision });
    });
  }

  // --- Before serving ---

  /** `done` gets why this member must not start, or null. Members that do not answer say nothing. */
  initialCheck(done: (error: string | null) => void): void {
    const { id, logger, timeoutText } = this.source;
    const fields = { 'local-member-id': hexId(id) };
    logger.info(CALLER, 'starting initial corruption check', { ...fields, timeout: timeoutText });
    const failed = (error: EtcdError): void => done(`${hexId(id)} failed to fetch hash (${error.message})`);
    this.hash(0, failed, (local) => {
      this.source.peerHashes(local.revision, (answers) => {
        const differing = answers.filter((answer) => this.differsAtStart(local, answer));
        if (differing.length > 0) done(`${hexId(id)} found data inconsistency with peers`);
        else {
          logger.info(CALLER, 'initial corruption checking passed; no corruption', fields);
          done(null);
        }
      });
    });
  }

  private differsAtStart(local: KeyHash, { id, urls, hash, error }: PeerHash): boolean {
    const fields = {
      'local-member-id': hexId(this.source.id),
      'local-member-revision': local.revision,
      'local-member-compact-revision': local.compactRevision,
      'local-member-hash': local.hash,
      'remote-peer-id': hexId(id),
      'remote-peer-endpoints': urls,
    };
    if (hash === null) {
      const message = startErrors.get(error ?? '');
      if (message !== undefined) this.warn(message, fields);
      return false;
    }
    if (hash.hash === local.hash) return false;
    const isComparable = hash.compactRevision === local.compactRevision;
    const what = isComparable ? 'different hash values' : 'different compact revision values';
    this.warn(`found ${what} from remote peer`, {
      ...fields,
      'remote-peer-revision': hash.currentRevision,
      'remote-peer-compact-revision': hash.compactRevision,
      'remote-peer-hash': hash.hash,
    });
    return isComparable;
  }

  // --- At the current revision ---

  periodicCheck(): void {
    this.isChecking = true;
    const failed = (error: EtcdError): void => {
      this.isChecking = false;
      this.warn('failed to check hash KV', { error: error.message });
    };
    this.hash(0, failed, (before) => {
      this.source.peerHashes(before.revision, (answers) => {
        if (this.source.isStopped) return;
        this.source.read({
          ready: () => this.hash(0, failed, (after) => this.comparePeriodic(before, after, answers)),
          failed,
        });
      });
    });
  }

  private comparePeriodic(before: KeyHash, after: KeyHash, answers: readonly PeerHash[]): void {
    this.isChecking = false;
    let accused: bigint | null = null;
    // One alarm a check, as in etcd: the first that is found.
    const accuse = (id: bigint, message: string, fields: LogFields): void => {
      this.warn(message, fields);
      accused ??= id;
    };
    const isSameState = after.revision === before.revision && after.compactRevision === before.compactRevision;
    if (isSameState && after.hash !== before.hash) {
      accuse(this.source.id, 'found hash mismatch', {
        ...{ 'revision-1': before.revision, 'compact-revision-1': before.compactRevision, 'hash-1': before.hash },
        ...{ 'revision-2': after.revision, 'compact-revision-2': after.compactRevision, 'hash-2': after.hash },
      });
    }
    let checked = 0;
    for (const { id, hash } of answers) {
      if (hash === null) continue;
      checked++;
      const peer = { 'follower-peer-id': hexId(id) };
      if (hash.currentRevision > after.currentRevision) {
        const revisions = {
          'leader-revision': after.currentRevision,
          'follower-revision': hash.currentRevision,
        };
        accuse(id, "revision from follower must be less than or equal to leader's", { ...revisions, ...peer });
      }
      const compactRevisions = {
        'leader-compact-revision': after.compactRevision,
        'follower-compact-revision': hash.compactRevision,
      };
      if (hash.compactRevision > after.compactRevision) {
        const message = "compact revision from follower must be less than or equal to leader's";
        accuse(id, message, { ...compactRevisions, ...peer });
      }
      if (hash.compactRevision === before.compactRevision && hash.hash !== before.hash) {
        const hashes = { 'leader-hash': before.hash, 'follower-hash': hash.hash };
        accuse(id, 'same compact revision then hashes must match', { ...compactRevisions, ...hashes, ...peer });
      }
    }
    if (accused !== null) this.source.raiseAlarm(accused);
    this.source.logger.info(CALLER, 'finished peer corruption check', { 'number-of-peers-checked': checked });
  }

  // --- At revisions that all have compacted ---

  compactHashCheck(): void {
    const { source } = this;
    this.isCheckingCompactions = true;
    const fields = { 'local-member-id': hexId(source.id), timeout: source.timeoutText };
    source.logger.info(CALLER, 'starting compact hash check', fields);
    const hashes = source
      .compactionHashes()
      .filter(({ revision }) => revision > this.checkedRevision)
      .sort((a, b) => b.revision - a.revision);
    this.checkFrom(hashes, 0);
  }

  /** The newest first, until one says something about all members. */
  private checkFrom(hashes: readonly CompactionHash[], at: number): void {
    const hash = hashes[at];
    if (hash === undefined) {
      this.endCompactCheck(hashes.length);
      return;
    }
    this.source.peerHashes(hash.revision, (answers) => {
      if (this.source.isStopped) return;
      if (answers.length > 0 && this.compare(hash, answers)) this.endCompactCheck(at + 1);
      else this.checkFrom(hashes, at + 1);
    });
  }

  private endCompactCheck(checked: number): void {
    this.isCheckingCompactions = false;
    const fields = { 'number-of-hashes-checked': checked };
    this.source.logger.info(CALLER, 'finished compaction hash check', fields);
  }

  /** True: this hash is judged, the older ones need no look. */
  private compare(own: CompactionHash, answers: readonly PeerHash[]): boolean {
    const membersByHash = new Map<number, bigint[]>([[own.hash, [this.source.id]]]);
    let checked = 0;
    for (const answer of answers) {
      const reason = skipReason(own, answer);
      if (reason !== null) {
        this.warn("Skipped peer's hash", {
          'number-of-peers': answers.length,
          'leader-id': hexId(this.source.id),
          'peer-id': hexId(answer.id),
          reason,
        });
        continue;
      }
      checked++;
      const hash = answer.hash!.hash;
      membersByHash.set(hash, [...(membersByHash.get(hash) ?? []), answer.id]);
    }
    if (membersByHash.size === 1) return this.noteEqual(own, checked, answers.length);
    this.accuseMinority(own, membersByHash, answers.length + 1);
    return true;
  }

  private noteEqual({ revision, compactRevision }: CompactionHash, checked: number, peers: number): boolean {
    const fields = { revision, compactRevision };
    if (checked < peers) {
      this.warn('skipped revision in compaction hash check; was not able to check all peers', {
        'number-of-peers-checked': checked,
        'number-of-peers': peers,
        ...fields,
      });
      return false;
    }
    const message = 'successfully checked hash on whole cluster';
    this.source.logger.info(CALLER, message, { 'number-of-peers-checked': checked, ...fields });
    this.checkedRevision = Math.max(this.checkedRevision, revision);
    return true;
  }

  private accuseMinority(own: CompactionHash, membersByHash: Map<number, bigint[]>, memberCount: number): void {
    const { source } = this;
    const quorum = quorumOf(memberCount);
    const majority = [...membersByHash].find(([, members]) => members.length >= quorum);
    const fields = {
      'leader-id': hexId(source.id),
      'leader-revision': own.revision,
      'leader-compact-revision': own.compactRevision,
      'leader-hash': own.hash,
    };
    if (majority === undefined) {
      const message =
        'Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0';
      source.logger.error(CALLER, message, fields);
      source.raiseAlarm(0n);
    } else membersByHash.delete(majority[0]);
    for (const [hash, members] of membersByHash) {
      if (majority !== undefined) for (const member of members) source.raiseAlarm(member);
      source.logger.error(CALLER, 'Detected compaction hash mismatch', {
        ...fields,
        'peer-hash': hash,
        'peer-ids': members.map(hexId).join(','),
        'quorum-exist': majority !== undefined,
      });
    }
  }
}

/** Why there is nothing to compare at a start, by the error of peerHashes(). */
const startErrors: ReadonlyMap<string, string> = new Map([
  ['etcdserver: mvcc: required revision is a future revision', 'cannot fetch hash from slow remote peer'],
  [
    'etcdserver: mvcc: required revision has been compacted',
    'cannot fetch hash from remote peer; local member is behind',
  ],
  ['etcdserver: cluster ID mismatch', 'cluster ID mismatch'],
]);

function skipReason(own: CompactionHash, { hash }: PeerHash): string | null {
  if (hash === null) return 'no response';
  if (hash.compactRevision === own.compactRevision) return null;
  return (
    `the peer's CompactRevision ${hash.compactRevision} doesn't match ` +
    `leader's CompactRevision ${own.compactRevision}`
  );
}
