// A disk that opens files also when the process has used up its descriptors: it keeps some open that it gives up then. For the log, whose
// next segment decides whether the member lives. Connections are counted (connection-quota.ts) and should never get that far; what goes
// out to other members and what libraries open is not.

import { openTriesMax, openTryPauseMs } from '../cluster-limits.ts';
import { type Disk, errorCode } from './file.ts';

/** A segment and its directory are open at once. */
const descriptorsKept = 2;

/** `held` is a file that can be opened at any time. */
export function reservedDisk(disk: Disk, held: string, tryPauseMs: number = openTryPauseMs): Disk {
  const reserve: number[] = [];
  const refill = (): void => {
    try {
      while (reserve.length < descriptorsKept) reserve.push(disk.open(held, 'read'));
    } catch (error) {
      if (!isOutOfDescriptors(error)) throw error;
    }
  };
  // Nothing was written when there was no descriptor for it: unlike a failed write, it may be tried again. Others may be faster to take
  // one that is given up, so it takes a few tries.
  const persistently = <T>(act: () => T): T => {
    for (let tries = 1; ; tries++) {
      try {
        return act();
      } catch (error) {
        if (!isOutOfDescriptors(error) || tries >= openTriesMax) throw error;
        const given = reserve.pop();
        if (given === undefined) pause(tryPauseMs);
        else disk.close(given);
      }
    }
  };
  refill();
  return {
    ...disk,
    open: (path, mode) => {
      const fd = persistently(() => disk.open(path, mode));
      refill();
      return fd;
    },
    close: (fd) => {
      disk.close(fd);
      refill();
    },
    syncDirectory: (directory) => {
      persistently(() => disk.syncDirectory(directory));
      refill();
    },
  };
}

/** Of this process, or of the system. */
function isOutOfDescriptors(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'EMFILE' || code === 'ENFILE';
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
