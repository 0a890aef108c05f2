// What the raft core says (raft/config.ts), in the member's log: under the name "raft", as in etcd, whose words and levels the core
// has. Not the leaders that a member sees: those are member-log.ts's, in the words of raft's node.

import type { RaftLogger } from '../raft/config.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Of the core and of its node, too. */
export const RAFT_LOGGER_NAME = 'raft';
const CALLER = 'raft/raft.ts';

export function raftLogger(logger: Logger): RaftLogger {
  const named = logger.named(RAFT_LOGGER_NAME);
  return {
    debugEnabled: named.enabled('debug'),
    debug: (line) => named.debug(CALLER, line),
    info: (line) => named.info(CALLER, line),
    warn: (line) => named.warn(CALLER, line),
  };
}
