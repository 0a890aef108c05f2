// Defragmentation without stopping: what is live goes to a new file while the flusher goes on with the old one; then the new
// file catches up, and only the last of it holds commits until every thread has moved. A crash at any step leaves one whole
// database under the old name.
//
//   key       rows and their garbage of one commit, in slices (tables-copy.ts)                        commits, merges go on
//   live      the index of a later commit, the same way                                               commits, merges go on
//   rows      rows and garbage past the copy's last, in slices                                        commits, merges go on
//   index     the index of those rows (index-catch-up.ts), up to where the old file's stands          commits, merges go on
//             ... rows and index again, each round having less, until a last one in which no new merge begins
//   moving    the rest of the rows, small buckets and the engine's numbers whole, one commit          commits are held
//             rename over the old file, sync the folder
//   swapping  core and flusher open the new file and close the old one                                commits are held
//
// To follow the index costs five times as much a change as to follow the rows, so it is copied last. Merges go on meanwhile, since
// all that is not merged is memory, and a scan at the next start: a copy of a large file takes minutes.
// Compactions are jobs and wait. etcd's Defragment stops the member instead; its failpoints are at the same stages.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { LmdbEnvironment, type PinnedView, removeLmdb } from '../io/lmdb.ts';
import type { ReadTable } from '../io/table.ts';
import { BUCKET_NAMES } from '../snapshot/schema.ts';
import { defragSpareBytes } from '../storage-limits.ts';
import { TABLE_NAMES } from './engine-state.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';
import { IndexCatchUp } from './index-catch-up.ts';
import { indexTableNames } from './index-tables.ts';
import { TablesCopy } from './tables-copy.ts';

export function defragPath(path: string): string {
  return `${path}.defrag`;
}

type State = 'begin' | 'key' | 'live' | 'rows' | 'index' | 'moving' | 'swapping';

/** Tables that only grow at their end while a defragmentation runs. */
const GROWING = ['key', 'garbage'] as const;
/** Tables that are copied whole at the end: small ones, and the engine's own numbers. */
const SMALL: readonly string[] = [...BUCKET_NAMES.filter((name) => name !== 'key'), 'keelson'];
const INDEX: readonly string[] = indexTableNames.filter((name) => name !== 'keelson');
/** Those that must have as many entries in the copy at the end. How old revisions are divided into `hist` may differ. */
const COMPARED: readonly string[] = [...GROWING, ...SMALL, 'live', 'dead', 'leased'];

export class DefragJob implements RunningJob {
  readonly hash = 0;
  readonly mustEnd = true;
  /** What comes while the file is copied must be copied too, in less time than it took to come. */
  readonly hurries = true;
  error = '';
  holdsCommits = false;
  private readonly flusher: Flusher;
  private readonly old: LmdbEnvironment;
  private readonly path: string;
  private view: PinnedView | null = null;
  private copy: LmdbEnvironment | null = null;
  private tables: TablesCopy | null = null;
  private index: IndexCatchUp | null = null;
  private state: State = 'begin';
  private rounds = 0;
  /** Rows and garbage blocks that this round has copied. */
  private roundEntries = 0;
  /** Where the old file's index stood when this round had copied its rows. */
  private roundRevision = 0;

  constructor(flusher: Flusher, environment: LmdbEnvironment) {
    this.flusher = flusher;
    this.old = environment;
    this.path = defragPath(environment.path);
  }

  step(): JobStep {
    if (this.isSwapping) return this.stepSwap();
    if (this.flusher.isClosing) return this.giveUp('the server is closing');
    try {
      this.stepCopy();
      return 'more';
    } catch (error) {
      // Until the rename, a failure (a full disk) costs only the copy. Damage is the database's: it ends the engine wherever it is met.
      const isDamage = error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt;
      if (this.isSwapping || isDamage) throw error;
      return this.giveUp(error instanceof Error ? error.message : String(error));
    }
  }

  private get isSwapping(): boolean {
    return this.state === 'swapping';
  }

  private stepCopy(): void {
    switch (this.state) {
      case 'begin':
        this.begin();
        return;
      case 'key':
        if (this.tables!.step()) this.beginIndex();
        return;
      case 'live':
        if (this.tables!.step()) this.endCopy();
        return;
      case 'rows':
        this.copyRows();
        return;
      case 'index':
        this.copyIndex();
        return;
      default:
        this.move();
    }
  }

  private begin(): void {
    failpoint('defragBeforeCopy');
    removeLmdb(this.path);
    this.checkSpace();
    this.copy = new LmdbEnvironment({ path: this.path, noSync: this.old.noSync });
    for (const name of TABLE_NAMES) this.copy.table(name);
    this.beginCopy(GROWING);
    this.state = 'key';
  }

  private beginIndex(): void {
    this.beginCopy(INDEX);
    this.index = new IndexCatchUp(this.copyOf(), this.flusher.state.indexedRevision, this.flusher.limits);
    this.state = 'live';
  }

  private beginCopy(names: readonly string[]): void {
    const { limits, options } = this.flusher;
    this.view?.close();
    this.view = this.old.pin();
    this.tables = new TablesCopy(this.view, this.copyOf(), names, limits, options.now);
  }

  /** The copy is at most as large as what is in use; a disk that it fills would end the server. */
  private checkSpace(): void {
    const { allocatedBytes, freeBytes } = this.old.sizes();
    const needed = allocatedBytes - freeBytes + defragSpareBytes;
    const free = this.old.diskFreeBytes();
    if (free < needed) throw new Error(`the disk has ${free} bytes left, defragmentation may need ${needed}`);
  }

  private endCopy(): void {
    this.view?.close();
    this.view = null;
    this.state = 'rows';
  }

  /** A slice of the rows that the copy lacks. */
  private copyRows(): void {
    const { flusher } = this;
    const { commitRows } = flusher.limits;
    this.old.refresh();
    let copied = 0;
    this.copyOf().transaction(() => {
      for (const name of GROWING) copied += this.copyGrown(name, commitRows);
    });
    this.roundEntries += copied;
    if (copied >= commitRows) return;
    this.roundRevision = flusher.state.indexedRevision;
    this.state = 'index';
  }

  private copyIndex(): void {
    if (this.indexOf().step(this.roundRevision, this.flusher.compactRevision)) this.endRound();
  }

  /** The copy has reached the old file's end, as it was when the round had copied its rows. */
  private endRound(): void {
    const { flusher, roundEntries } = this;
    const { defragCatchUpRows, defragLastRoundRows, defragRoundsMax } = flusher.limits;
    this.rounds++;
    this.roundEntries = 0;
    this.state = 'rows';
    if (!flusher.mergesHeld) {
      flusher.mergesHeld = roundEntries <= defragLastRoundRows || this.rounds >= defragRoundsMax;
      return;
    }
    const isIndexed = !flusher.isMerging && flusher.state.indexedRevision === this.indexOf().indexedRevision;
    if (!isIndexed || roundEntries > defragCatchUpRows) return;
    this.state = 'moving';
    this.holdsCommits = true;
  }

  private move(): void {
    this.old.refresh();
    const copy = this.copyOf();
    copy.transaction(() => {
      for (const name of GROWING) this.copyGrown(name, Infinity);
      for (const name of SMALL) {
        const target = copy.table(name);
        target.clear();
        this.old.table(name).scan(undefined, undefined, (key, value) => {
          target.put(key, value);
          return true;
        });
      }
    });
    this.checkCopy();
    failpoint('defragBeforeRename');
    const path = this.old.path;
    this.state = 'swapping';
    copy.renameTo(path);
    this.flusher.options.send({ kind: 'swap', path });
  }

  /** Copies up to `entriesMax` entries past the copy's last one; returns how many. */
  private copyGrown(name: string, entriesMax: number): number {
    const target = this.copyOf().table(name);
    const last = lastKey(target);
    let copied = 0;
    this.old.table(name).scan(last, undefined, (key, value) => {
      if (last !== undefined && copied === 0 && key.equals(last)) return true;
      target.put(key, value);
      return ++copied < entriesMax;
    });
    return copied;
  }

  private checkCopy(): void {
    const copy = this.copyOf();
    copy.refresh();
    for (const name of COMPARED) {
      const same = copy.table(name).entryCount() === this.old.table(name).entryCount();
      assert(same, 'defragmentation: the copy differs from the database');
    }
  }

  /** The core goes first: who closes the old file last unmaps it, which takes a while. */
  private stepSwap(): JobStep {
    if (!this.flusher.hasCoreSwapped) return 'wait';
    this.old.reopen(this.copyOf().path);
    this.copyOf().close();
    this.copy = null;
    this.holdsCommits = false;
    this.flusher.mergesHeld = false;
    // Tells the core the new sizes.
    this.flusher.commit(() => {});
    return 'done';
  }

  private giveUp(error: string): JobStep {
    this.error = error;
    this.view?.close();
    this.copy?.close();
    this.copy = null;
    removeLmdb(this.path);
    this.holdsCommits = false;
    this.flusher.mergesHeld = false;
    return 'done';
  }

  private copyOf(): LmdbEnvironment {
    assert(this.copy !== null, 'defragmentation without its copy');
    return this.copy;
  }

  private indexOf(): IndexCatchUp {
    assert(this.index !== null, 'defragmentation without its copy');
    return this.index;
  }
}

/** A copy of the last key, or undefined. */
function lastKey(table: ReadTable): Buffer | undefined {
  let last: Buffer | undefined;
  table.scan(
    undefined,
    undefined,
    (key) => {
      last = Buffer.from(key);
      return false;
    },
    true,
  );
  return last;
}
