// Failures of the environment (disk, corruption) that end the process: each kind has its own exit code, so that an operator
// or a sidecar can tell them apart without reading logs. Bugs assert instead; clients get a status.

/** Exit codes of `bin/keelson`. 1 is a bug (assertion), 2 bad flags as in etcd. */
export const ExitCode = {
  bug: 1,
  usage: 2,
  /** The WAL is damaged somewhere else than in its torn tail. */
  walCorrupt: 10,
  /** The WAL could not be written or synced. */
  walWrite: 11,
  /** LMDB could not be opened, written or synced. */
  backendWrite: 12,
  /** The disk is full (ENOSPC on the WAL, or EIO of LMDB with no blocks left). */
  diskFull: 13,
  /** The data directory belongs to something else, another process holds it, or another version wrote it. */
  dataDir: 14,
  /** The database's content contradicts itself or the WAL. */
  backendCorrupt: 15,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** An error of the environment. process/fatal-exit.ts logs it at level fatal and exits with `exitCode`. */
export class FatalError extends Error {
  override readonly name: string = 'FatalError';
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** For what a committed entry says: no member of this version can apply it, now or at the next start. */
export function assertApplicable(
  condition: unknown,
  entry: { index: number; term: number },
  what: string,
): asserts condition {
  if (condition) return;
  throw new FatalError(
    ExitCode.walCorrupt,
    `entry ${entry.index} of term ${entry.term} in the log ${what}: it was damaged before it was proposed, or is of another version. ` +
      'No start gets beyond it: restore the cluster from a snapshot of before',
  );
}

/** For what is read from the database: what nobody can have written there is damage of the file, not a bug. */
export function assertSound(condition: unknown, what: string): asserts condition {
  if (condition) return;
  throw new FatalError(ExitCode.backendCorrupt, `the database is damaged: ${what}; restore it from a snapshot`);
}
