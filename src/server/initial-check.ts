// Before a member serves anybody: whether what it holds is what its peers hold (the feature gate InitialCorruptCheck). A member
// that has applied nothing yet has nothing to compare.

import { ExitCode, FatalError } from '../base/fatal.ts';
import type { Member } from './member.ts';

/** Rejects with a FatalError when it must not start. */
export function initialCheck(member: Member, isEnabled: boolean): Promise<void> {
  const { backend, logger } = member.parts;
  if (!isEnabled || backend.consistentIndex === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    member.corruption.initialCheck((error) => {
      if (error === null) {
        resolve();
        return;
      }
      logger.error('server/initial-check.ts', 'checkInitialHashKV failed', { error });
      reject(new FatalError(ExitCode.backendCorrupt, error));
    });
  });
}
