// The directories that a member lives in: made, and looked at as etcd looks at them. What is in them is bootstrap.ts's.

import { ExitCode, FatalError } from '../base/fatal.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { type Disk, errorCode, errorText } from '../io/file.ts';
import { absolutePath } from '../io/working-directory.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Absolute, whatever the working directory becomes. */
export function walDirectory({ dataDir, walDir }: ServerConfig): string {
  if (walDir !== '') return absolutePath(walDir, '--wal-dir');
  return `${absolutePath(dataDir, '--data-dir')}/member/wal`;
}

/** With its parents; `name` is what the operator knows it as. Throws FatalError. */
export function makeDirectory(disk: Disk, directory: string, name: string): void {
  try {
    disk.mkdir(directory);
  } catch (error) {
    if (errorCode(error) === '') throw error;
    throw new FatalError(ExitCode.dataDir, `${name} cannot be used: ${errorText(error)}`);
  }
}

/** Told and not changed, as in etcd: whose the directory is, and who else is to read it, is the operator's to say. */
export function checkPermissions(disk: Disk, logger: Logger, dataDir: string): void {
  for (const directory of [dataDir, `${dataDir}/member`, `${dataDir}/member/snap`]) {
    const permissions = disk.permissions(directory);
    if ((permissions & 0o777) === 0o700) continue;
    logger.warn('server/data-directory.ts', 'check file permission', {
      error:
        `directory ${JSON.stringify(directory)} exist, but the permission is "${directoryModeText(permissions)}". The ` +
        'recommended permission is "-rwx------" to prevent possible unprivileged access to the data',
    });
  }
}

/** As Go writes the mode of a directory. */
function directoryModeText(permissions: number): string {
  let text = 'd';
  for (const [bit, letter] of [
    [0o4000, 'u'],
    [0o2000, 'g'],
    [0o1000, 't'],
  ] as const) {
    if ((permissions & bit) !== 0) text += letter;
  }
  for (let bit = 8; bit >= 0; bit--) text += (permissions & (1 << bit)) === 0 ? '-' : 'xwr'[bit % 3];
  return text;
}
