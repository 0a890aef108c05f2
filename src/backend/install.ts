// How the database of a leader's snapshot takes the place of the present one, over LMDB and with threads; backend.ts says when. It is
// made beside it by a thread of its own (install-worker.ts), while everything goes on, and renamed over it when both sides have let go.
// A crash at any step leaves one whole database under the old name, and the snapshot's file beside it until it is not needed.
//
//   snap.db ── convert ──▶ keelson.mdb.install ── rename, sync the folder ──▶ keelson.mdb
//
// Who still reads the old file (a snapshot's thread) goes on with it: it is gone when they end.

import { failpoint } from '../base/failpoint.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { errorText } from '../io/file.ts';
import { Thread } from '../io/flusher-thread.ts';
import { LmdbEnvironment, replaceLmdb } from '../io/lmdb.ts';
import {
  type BackendOptions,
  type BackendParts,
  effectiveLimits,
  type Installer,
  type SnapshotFile,
} from './backend-options.ts';
import { readEngineState, TABLE_NAMES } from './engine-state.ts';
import { FlusherThread } from './flusher-port.ts';
import type { TargetOptions } from './snapshot-conversion.ts';

export function installPath(path: string): string {
  return `${path}.install`;
}

/** Opens or creates the database for the core, and the flusher's thread over it. Throws FatalError. */
export function openDatabase(options: BackendOptions): BackendParts {
  const { path } = options;
  const noSync = options.noSync === true;
  const environment = new LmdbEnvironment({ path, noSync, mapped: true });
  try {
    // Before anything is written to it: it may be another version's.
    readEngineState(environment.table('keelson'), `the database ${path}`);
    // All tables exist before the second thread looks: creating one is a commit.
    for (const name of TABLE_NAMES) environment.table(name);
  } catch (error) {
    environment.close();
    throw error;
  }
  const failpoints = options.failpoints ?? null;
  const port = new FlusherThread({ path, noSync, failpoints, limits: effectiveLimits(options) });
  return { reader: environment, port, reopen: (to) => environment.reopen(to) };
}

export interface InstallWorkerData {
  readonly snapshot: SnapshotFile;
  /** Of the new database. */
  readonly target: TargetOptions;
  readonly failpoints: SharedArrayBuffer | null;
}

export type FromInstall =
  | { readonly kind: 'converted' }
  | { readonly kind: 'failed'; readonly exitCode: ExitCode; readonly message: string };

export class LmdbInstaller implements Installer {
  private readonly options: BackendOptions;
  private thread: Thread<never, FromInstall> | null = null;

  constructor(options: BackendOptions) {
    this.options = options;
  }

  convert(snapshot: SnapshotFile, done: (error: FatalError | null) => void): void {
    const { path, noSync = false, failpoints = null, indexLimits } = this.options;
    const limits = effectiveLimits(this.options);
    const target = { path: installPath(path), noSync, limits, ...(indexLimits === undefined ? {} : { indexLimits }) };
    const data: InstallWorkerData = { snapshot, target, failpoints };
    const end = (error: FatalError | null): void => {
      if (this.thread === null) return;
      this.thread = null;
      done(error);
    };
    const failed = (message: string): void => end(new FatalError(ExitCode.bug, `thread of a snapshot: ${message}`));
    let isConverted = false;
    this.thread = new Thread(new URL('./install-worker.ts', import.meta.url), data, {
      message: (message: FromInstall) => {
        if (message.kind === 'failed') end(new FatalError(message.exitCode, message.message));
        else isConverted = true;
      },
      failed: (error) => failed(error instanceof Error ? (error.stack ?? error.message) : String(error)),
      // Only then nobody has the new database open.
      ended: () => (isConverted ? end(null) : failed('it ended by itself')),
    });
  }

  replace(): BackendParts {
    const { path } = this.options;
    putInPlace(path);
    const parts = openDatabase(this.options);
    failpoint('applyAfterOpenSnapshot');
    return parts;
  }

  cancel(): void {
    const { thread } = this;
    this.thread = null;
    thread?.terminate();
  }
}

/** The converted database takes the place of the one at `path`. Nobody has either open. Throws FatalError. */
export function putInPlace(path: string): void {
  try {
    replaceLmdb(installPath(path), path);
  } catch (error) {
    const message = `the database ${path} cannot be replaced by that of a snapshot: ${errorText(error)}`;
    throw new FatalError(ExitCode.backendWrite, message, { cause: error });
  }
}
