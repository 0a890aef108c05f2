// The end of the process for a reason that the log tells: a failure of the environment with its own exit code, or a bug.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { exitNow } from '../io/process-exit.ts';
import type { Logger } from '../telemetry/logger.ts';

const CALLER = 'process/fatal-exit.ts';

export class FatalExit {
  private readonly logger: Logger;
  /** Once it is to be opened: what is read from it and found to be damaged does not know which file it came from. */
  databaseFile: string | null = null;

  constructor(logger: Logger) {
    this.logger = logger;
  }

  /** Also for callbacks that have nobody to throw to. */
  end(error: unknown): never {
    const { logger } = this;
    if (error instanceof FatalError) {
      // LMDB may have said something of its own on stderr, without an end of its line.
      if (error.exitCode === ExitCode.diskFull || error.exitCode === ExitCode.backendWrite) logger.breakLine();
      const isDamage = error.exitCode === ExitCode.backendCorrupt;
      const file = isDamage && this.databaseFile !== null ? { database: this.databaseFile } : {};
      logger.fatal(CALLER, error.message, { 'exit-code': error.exitCode, ...file });
      logger.flush();
      exitNow(error.exitCode);
    }
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    logger.fatal(CALLER, 'a bug: the process ends so that nothing wrong is acknowledged', { error: stack });
    logger.flush();
    exitNow(ExitCode.bug);
  }
}
