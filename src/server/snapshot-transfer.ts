// Snapshots between members: what is being sent, what arrives, and the installation of what has arrived. A member that lags further behind
// than the leader's log goes gets the leader's database and the log from there on.
//
//   leader    raft: MsgSnap ── send() ──▶ snapshot-sending.ts ──▶ transport
//   member    transport ── arrives() ──▶ snapshot-receipt.ts ── durable ──▶ raft: Ready.snapshot ──▶ WAL: marker, durable
//                 ──▶ install(): a database is made of the file, takes the place of the own, the state follows
//
// A crash between any two of these leaves a member that starts (snapshot-recovery.ts): before the marker the old state counts, from the
// marker on the new one, whose file stays until the database holds it.

import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { snapshotLogHeldMs, snapshotSendsMax } from '../cluster-limits.ts';
import { type Member as ClusterMember, hexId } from '../membership/cluster.ts';
import type { SnapshotReceipt } from '../peer/peer-transport.ts';
import type { Message, Snapshot } from '../raft/types.ts';
import type { LogFields } from '../telemetry/logger.ts';
import { humanBytes } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { restoreLeases, restoreState } from './restored-state.ts';
import { removeFile, removeSnapshots, snapshotDirectory, snapshotPath } from './snapshot-files.ts';
import { FileReceipt, type SavedSnapshot, UnwantedReceipt } from './snapshot-receipt.ts';
import { SnapshotSending } from './snapshot-sending.ts';
import { checkVersions } from './version-check.ts';

const CALLER = 'server/snapshot-transfer.ts';

interface Installation {
  readonly snapshot: Snapshot;
  readonly done: () => void;
}

export class SnapshotTransfers {
  private readonly parts: MemberParts;
  private readonly directory: string;
  /** At most snapshotSendsMax. */
  private readonly sendings = new Set<SnapshotSending>();
  /** Of those that were sent: whose entries stay until when. */
  private held: { readonly index: number; readonly untilMs: number }[] = [];
  private receipt: SnapshotReceipt | null = null;
  /** Entries whose databases have come, whole, and may be there still. */
  private readonly saved = new Set<number>();
  /** The first is under way. A second one may have arrived before it began; no third. */
  private readonly installations: Installation[] = [];
  /** The raft index of the last one that was installed since the start. */
  private installedIndex = 0;
  private isStopped = false;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.directory = snapshotDirectory(parts.backend.path);
  }

  // --- sending ---

  /** Sends the state as of now behind `message`; what becomes of it raft hears of. */
  send(message: Message): void {
    const { raft, logger } = this.parts;
    // While another state is installed the log begins behind the one that is there: whoever got that would need the next snapshot at once.
    if (this.isStopped || this.isInstalling || this.sendings.size >= snapshotSendsMax) {
      const to = hexId(message.to);
      logger.warn(CALLER, 'refused to send a database snapshot', { to, 'snapshots-in-flight': this.sendings.size });
      raft.reportSnapshot(message.to, false);
      return;
    }
    const sending = new SnapshotSending(this.parts, message, (ended, isSent) => {
      this.sendings.delete(ended);
      if (isSent) this.held.push({ index: ended.index, untilMs: this.parts.nowMs() + snapshotLogHeldMs });
      if (!ended.wasHandedOver) raft.reportSnapshot(message.to, false);
    });
    this.sendings.add(sending);
    sending.start();
  }

  /** Entries behind this index must stay for those that are being sent a snapshot, or were a moment ago; Infinity: none. */
  get heldIndex(): number {
    let index = Infinity;
    for (const sending of this.sendings) index = Math.min(index, sending.index);
    for (const held of this.held) index = Math.min(index, held.index);
    return index;
  }

  /** With each tick of raft. */
  tick(nowMs: number): void {
    if (this.held.length > 0) this.held = this.held.filter(({ untilMs }) => nowMs < untilMs);
    if (this.saved.size > 0) this.removeUnneeded();
  }

  // --- receiving ---

  /** The database of `message` is about to come. Null: not now. */
  arrives(message: Message): SnapshotReceipt | null {
    const { raft, files } = this.parts;
    assert(message.snapshot !== null, 'a snapshot without one');
    const { index } = message.snapshot.meta;
    // Raft answers it with what it has; a leader that does not hear so would send it for ever.
    if (index <= raft.committedIndex) return new UnwantedReceipt();
    if (this.isStopped || this.receipt !== null || this.installations.length > 0) return null;
    this.removeUnneeded();
    this.receipt = new FileReceipt({
      files,
      directory: this.directory,
      index,
      nowMs: this.parts.nowMs,
      ended: (saved) => {
        this.receipt = null;
        if (saved === null) return;
        this.saved.add(index);
        this.noteSaved(index, saved);
      },
    });
    return this.receipt;
  }

  /**
   * Databases that raft did not take (of a leader of before, or the log came first) and those that are installed: with them on the disk
   * the next one might find no room. Raft hears of each in the turn in which it is saved.
   */
  private removeUnneeded(): void {
    const { raft, files, backend } = this.parts;
    for (const index of this.saved) {
      if (index <= raft.committedIndex && index > backend.consistentIndex) continue;
      removeFile(files.disk, snapshotPath(this.directory, index));
      this.saved.delete(index);
    }
  }

  private noteSaved(index: number, { bytes, durationMs, syncMs }: SavedSnapshot): void {
    const { logger, counters } = this.parts;
    const path = snapshotPath(this.directory, index);
    logger.info(CALLER, 'saved database snapshot to disk', { path, bytes, size: humanBytes(bytes) });
    counters.observeSnapshotSaved(durationMs / 1000, syncMs / 1000);
  }

  // --- installing ---

  /** Whether the state is about to be replaced. */
  get isInstalling(): boolean {
    return this.installations.length > 0;
  }

  /** The log says that the state is that of `snapshot`, durably: it becomes so. `done` once it is; never, if the process has to end. */
  install(snapshot: Snapshot, done: () => void): void {
    this.parts.logger.info(CALLER, 'applied incoming Raft snapshot', { 'snapshot-index': snapshot.meta.index });
    this.installations.push({ snapshot, done });
    if (this.installations.length === 1) this.installNext();
  }

  private installNext(): void {
    const [next] = this.installations;
    if (next === undefined || this.isStopped) return;
    const { backend, files, logger } = this.parts;
    const { index, term } = next.snapshot.meta;
    const fields = (): LogFields => ({
      'current-snapshot-index': this.installedIndex,
      'current-applied-index': backend.consistentIndex,
      'incoming-leader-snapshot-index': index,
      'incoming-leader-snapshot-term': term,
    });
    logger.info(CALLER, 'applying snapshot', fields());
    const path = snapshotPath(this.directory, index);
    if (!files.disk.exists(path)) throw missingSnapshot(path, index);
    const restored = (): void => {
      removeSnapshots(files.disk, this.directory, index);
      this.installedIndex = index;
      logger.info(CALLER, 'applied snapshot', fields());
      this.installations.shift();
      next.done();
      this.installNext();
    };
    backend.install({ path, index, term }, () => {
      this.restore();
      restoreLeases(this.parts, () => this.isStopped, restored);
    });
  }

  private restore(): void {
    const { cluster } = this.parts;
    const before = cluster.members();
    restoreState(this.parts);
    checkVersions(this.parts);
    this.followMembers(before);
  }

  /** Those that the snapshot knows are the peers now. */
  private followMembers(before: readonly ClusterMember[]): void {
    const { cluster, transport, id, logger } = this.parts;
    logger.info(CALLER, 'removing old peers from network');
    for (const member of before) {
      if (member.id !== id && cluster.member(member.id) === undefined) transport.removePeer(member.id);
    }
    logger.info(CALLER, 'removed old peers from network');
    logger.info(CALLER, 'adding peers from new cluster configuration');
    const known = new Map(before.map((member) => [member.id, member]));
    for (const member of cluster.members()) {
      if (member.id === id) continue;
      const old = known.get(member.id);
      if (old === undefined) transport.addPeer(member.id, member.peerUrls);
      else if (old.peerUrls.join() !== member.peerUrls.join()) transport.updatePeer(member.id, member.peerUrls);
    }
    logger.info(CALLER, 'added peers from new cluster configuration');
  }

  stop(): void {
    this.isStopped = true;
    for (const sending of this.sendings) sending.stop();
    this.receipt?.abort();
  }
}

/** The log tells of a state that is neither in the database nor beside it. */
export function missingSnapshot(path: string, index: number): FatalError {
  return new FatalError(
    ExitCode.backendCorrupt,
    `the log says that the state was replaced by the leader's snapshot of entry ${index}, but its file ${path} is not there and the ` +
      'database does not hold it. Restore both from one copy, or remove this member, delete its data directory and add it again',
  );
}
