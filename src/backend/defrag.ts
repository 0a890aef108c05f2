// Defragmentation without stopping: the live pages go to a new file while the flusher goes on with the old one; then the new
// file catches up, and only the last of it holds commits until every thread has moved. A crash at any step leaves one whole
// database under the old name.
//
//   copying     LMDB's compact copy of one commit, on a thread of the pool; index merges and other jobs wait
//   catching up rows and their garbage past the copy's last, in slices, until few are left      commits go on
//   moving      the rest of the rows, small buckets and the engine's numbers whole, one commit    commits are held
//               rename over the old file, sync the folder
//   swapping    flusher and core open the new file, close the old one                             commits are held
//
// Nothing but rows, garbage and small buckets changes meanwhile: compactions are jobs and merges are held, so the index
// tables of the copy stay right. etcd's Defragment stops the member instead; its failpoints are at the same stages.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { LmdbEnvironment, removeLmdb } from '../io/lmdb.ts';
import type { ReadTable } from '../io/table.ts';
import { BUCKET_NAMES } from '../snapshot/schema.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';

export function defragPath(path: string): string {
  return `${path}.defrag`;
}

const CATCH_UP_SLICES = 4;

type State = 'begin' | 'copying' | 'copied' | 'catchingUp' | 'moving' | 'swapping';

/** Tables that only grow at their end while a defragmentation runs. */
const GROWING = ['key', 'garbage'] as const;
/** Tables that are copied whole at the end: small ones, and the engine's own numbers. */
const SMALL: readonly string[] = [...BUCKET_NAMES.filter((name) => name !== 'key'), 'keelson'];

export class DefragJob implements RunningJob {
  readonly hash = 0;
  readonly mustEnd = true;
  error = '';
  holdsCommits = false;
  private readonly flusher: Flusher;
  private readonly old: LmdbEnvironment;
  private readonly wake: () => void;
  private readonly path: string;
  private copy: LmdbEnvironment | null = null;
  private state: State = 'begin';
  /** Rows and garbage blocks that the current round of catching up has copied. */
  private roundEntries = 0;

  /** `wake` has the flusher step again when the copy is done. */
  constructor(flusher: Flusher, environment: LmdbEnvironment, wake: () => void) {
    this.flusher = flusher;
    this.old = environment;
    this.wake = wake;
    this.path = defragPath(environment.path);
  }

  step(): JobStep {
    switch (this.state) {
      case 'begin':
        failpoint('defragBeforeCopy');
        this.flusher.mergesHeld = true;
        removeLmdb(this.path);
        this.state = 'copying';
        this.startCopy();
        return 'wait';
      case 'copying':
        return 'wait';
      case 'copied':
      case 'catchingUp':
      case 'moving':
        if (this.error !== '' || this.flusher.isClosing) return this.giveUp();
        return this.stepGuarded();
      case 'swapping':
        return this.stepSwap();
    }
  }

  private startCopy(): void {
    this.old.copyCompact(this.path).then(
      () => this.endCopy(''),
      (error: unknown) => this.endCopy(error instanceof Error ? error.message : String(error)),
    );
  }

  private endCopy(error: string): void {
    this.error = error;
    this.state = 'copied';
    this.wake();
  }

  /** Until the rename, a failure (a full disk) costs only the copy. */
  private stepGuarded(): JobStep {
    try {
      if (this.state === 'copied') this.openCopy();
      else if (this.state === 'catchingUp') this.catchUp();
      else this.move();
      return 'more';
    } catch (error) {
      if (this.state === 'swapping') throw error;
      this.error = error instanceof Error ? error.message : String(error);
      return this.giveUp();
    }
  }

  private openCopy(): void {
    const copy = new LmdbEnvironment({ path: this.path, noSync: this.old.noSync });
    this.copy = copy;
    for (const name of [...GROWING, ...SMALL]) copy.table(name);
    this.state = 'catchingUp';
  }

  /** A few slices of what the copy lacks, to one commit of the flusher: so it gains on the heaviest load. */
  private catchUp(): void {
    const { commitRows } = this.flusher.limits;
    this.old.refresh();
    for (let slice = 0; slice < CATCH_UP_SLICES; slice++) {
      let copied = 0;
      this.copyOf().transaction(() => {
        for (const name of GROWING) copied += this.copyGrown(name, commitRows);
      });
      this.roundEntries += copied;
      if (copied < commitRows) {
        this.endRound();
        return;
      }
    }
  }

  /** The copy has reached the old file's end as it was. */
  private endRound(): void {
    if (this.roundEntries <= this.flusher.limits.defragCatchUpRows) this.state = 'moving';
    this.roundEntries = 0;
    this.holdsCommits = this.state === 'moving';
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
    this.old.reopen(path);
    copy.close();
    this.copy = null;
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
    for (const name of [...GROWING, ...SMALL]) {
      const same = copy.table(name).entryCount() === this.old.table(name).entryCount();
      assert(same, 'defragmentation: the copy differs from the database');
    }
  }

  private stepSwap(): JobStep {
    if (!this.flusher.hasCoreSwapped) return 'wait';
    this.holdsCommits = false;
    this.flusher.mergesHeld = false;
    // Tells the core the new sizes.
    this.flusher.commit(() => {});
    return 'done';
  }

  private giveUp(): JobStep {
    if (this.error === '') this.error = 'the server is closing';
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
