// The replicated state in memory as it follows from the database: leases at a start; everything, in the parts that are there, when the
// database of a leader's snapshot has taken the place of the one before. Watchers and reads stay, and go on in the new state.

import type { Backend } from '../backend/backend.ts';
import { assertSound } from '../base/fatal.ts';
import { type Lessor, leaseIdOf } from '../lease/lessor.ts';
import { hexId } from '../membership/cluster.ts';
import type { Logger } from '../telemetry/logger.ts';
import { refuseProtected } from './auth-state.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/restored-state.ts';

/** As the store knows them: the first revision exists without a row, and compactions begin at none. */
export function storedRevisions(backend: Backend): { readonly current: number; readonly compact: number } {
  const { currentRevision, compactRevision } = backend;
  return { current: Math.max(1, currentRevision), compact: compactRevision === 0 ? -1 : compactRevision };
}

/** Into a lessor that has none. */
export function recoverLeases(lessor: Lessor, backend: Backend, logger: Logger): void {
  backend.bucketScan('lease', undefined, undefined, (_key, value) => {
    const isLease = lessor.recover(Buffer.from(value));
    assertSound(isLease, 'a stored lease does not parse');
    return true;
  });
  backend.index.visitLeased((leaseHi, leaseLo, key, start, end) => {
    if (lessor.recoverKey(leaseHi, leaseLo, key, start, end)) return;
    logger.error(CALLER, 'failed to attach a lease', { lease: hexId(leaseIdOf(leaseHi, leaseLo)) });
  });
}

/** The parts that a new state goes into. */
export type StateParts = Pick<MemberParts, 'backend' | 'store' | 'hub' | 'lessor' | 'alarms' | 'cluster' | 'logger'>;

/** The database was replaced. Leases first, as in etcd: keys are attached to those that there are. Throws FatalError. */
export function restoreState({ backend, store, hub, lessor, alarms, cluster, logger }: StateParts): void {
  refuseProtected(backend);
  const previousRevision = store.currentRevision;
  // Of the state before.
  hub.flush();
  logger.info(CALLER, 'restoring lease store');
  lessor.demote();
  lessor.clear();
  recoverLeases(lessor, backend, logger);
  logger.info(CALLER, 'restored lease store');
  logger.info(CALLER, 'restoring mvcc store');
  const { current, compact } = storedRevisions(backend);
  store.restore(current, compact);
  logger.info(CALLER, 'restored mvcc store', { 'consistent-index': backend.consistentIndex });
  logger.info(CALLER, 'restoring alarm store');
  alarms.recover();
  logger.info(CALLER, 'restored alarm store');
  logger.info(CALLER, 'restoring cluster configuration');
  const damaged = cluster.recover();
  assertSound(damaged === null, `its membership: ${damaged}`);
  logger.info(CALLER, 'restored cluster configuration');
  hub.restored(previousRevision);
}
