// The replicated state in memory as it follows from the database: leases at a start; everything, in the parts that are there, when the
// database of a leader's snapshot has taken the place of the one before. Watchers and reads stay, and go on in the new state.

import type { Backend } from '../backend/backend.ts';
import type { LeasedVisitor } from '../backend/index.ts';
import { assertSound } from '../base/fatal.ts';
import { restoredLeasesPerTurn } from '../cluster-limits.ts';
import { type Lessor, leaseIdOf } from '../lease/lessor.ts';
import { hexId } from '../membership/cluster.ts';
import type { Logger } from '../telemetry/logger.ts';
import { refuseProtected } from './auth-state.ts';
import { recoveredCluster } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/restored-state.ts';

/** As the store knows them: the first revision exists without a row, and compactions begin at none. */
export function storedRevisions(backend: Backend): { readonly current: number; readonly compact: number } {
  const { currentRevision, compactRevision } = backend;
  return { current: Math.max(1, currentRevision), compact: compactRevision === 0 ? -1 : compactRevision };
}

/** Into a lessor that has none. */
export function recoverLeases(lessor: Lessor, backend: Backend, logger: Logger): void {
  const recovery = new LeaseRecovery(lessor, backend, logger);
  while (recovery.step(Infinity));
}

/** The leases of a database, then their keys, a slice at a time; between the slices nothing may be applied. */
export class LeaseRecovery {
  private readonly lessor: Lessor;
  private readonly backend: Backend;
  private readonly logger: Logger;
  private hasLeases = false;
  /** Where the next slice begins; undefined: at the first of its kind. */
  private from: Buffer | undefined;

  constructor(lessor: Lessor, backend: Backend, logger: Logger) {
    this.lessor = lessor;
    this.backend = backend;
    this.logger = logger;
  }

  /** Of up to `count` rows. False: those were the last. Throws FatalError. */
  step(count: number): boolean {
    if (this.hasLeases) {
      this.from = this.backend.index.visitLeasedFrom(this.from, count, this.attach);
      return this.from !== undefined;
    }
    this.from = this.leasesFrom(this.from, count);
    this.hasLeases = this.from === undefined;
    return true;
  }

  private leasesFrom(from: Buffer | undefined, count: number): Buffer | undefined {
    let left = count;
    let next: Buffer | undefined;
    this.backend.bucketScan('lease', from, undefined, (key, value) => {
      if (left-- === 0) {
        next = Buffer.from(key);
        return false;
      }
      const isLease = this.lessor.recover(Buffer.from(value));
      assertSound(isLease, 'a stored lease does not parse');
      return true;
    });
    return next;
  }

  private readonly attach: LeasedVisitor = (leaseHi, leaseLo, key, start, end) => {
    if (this.lessor.recoverKey(leaseHi, leaseLo, key, start, end)) return;
    this.logger.error(CALLER, 'failed to attach a lease', { lease: hexId(leaseIdOf(leaseHi, leaseLo)) });
  };
}

/** The parts that a new state goes into. */
export type StateParts = Pick<
  MemberParts,
  'id' | 'backend' | 'store' | 'hub' | 'lessor' | 'alarms' | 'cluster' | 'logger' | 'schedule'
>;

/**
 * The database was replaced: all follows it at once but the leases, of which there may be too many for a turn. Nobody reads those on a
 * follower but by a listing, which sees those of before until restoreLeases() is done. Throws FatalError.
 */
export function restoreState({ id, backend, store, hub, alarms, cluster, logger }: StateParts): void {
  refuseProtected(backend);
  const knownVersion = cluster.version;
  const previousRevision = store.currentRevision;
  // Of the state before.
  hub.flush();
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
  recoveredCluster(logger, cluster, id, knownVersion);
  logger.info(CALLER, 'restored cluster configuration');
  hub.restored(previousRevision);
}

/** After restoreState(), over as many turns as it takes; nothing is applied before `done`. */
export function restoreLeases(
  { backend, lessor, logger, schedule }: StateParts,
  isStopped: () => boolean,
  done: () => void,
): void {
  logger.info(CALLER, 'restoring lease store');
  lessor.beginReplacement();
  const recovery = new LeaseRecovery(lessor, backend, logger);
  const turn = (): void => {
    // The database may be closed by now.
    if (isStopped()) return;
    if (recovery.step(restoredLeasesPerTurn)) {
      schedule(turn);
      return;
    }
    lessor.demote();
    lessor.replace();
    logger.info(CALLER, 'restored lease store');
    done();
  };
  turn();
}
