// The process's working directory, which may be removed under it: a deployment that started the server from a directory it then
// cleaned up. Nothing here needs one, since every path is absolute after the start, but Node does: each new thread asks for it
// before it runs a line of its script, and ends when there is none (`process.cwd failed … uv_cwd`; Node 26 has no option for it).

import path from 'node:path';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { errorCode } from './file.ts';

/** What `file`, given with the flag, means now; throws FatalError when that is relative to a directory that is gone. */
export function absolutePath(file: string, flag: string): string {
  try {
    return path.resolve(file);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
    throw new FatalError(
      ExitCode.dataDir,
      `the working directory of this process is gone, and ${flag} ${file} is relative to it: name an absolute path`,
    );
  }
}

/** For the main thread, before it starts another: goes to / when the working directory is gone. */
export function ensureWorkingDirectory(): void {
  try {
    // Node keeps what it was told once; going to where we are makes it ask again.
    process.chdir('.');
    process.cwd();
  } catch (error) {
    // Another error (a directory that we may not enter, say) does not keep a thread from starting.
    if (errorCode(error) === 'ENOENT') process.chdir('/');
  }
}
