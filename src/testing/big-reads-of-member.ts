// BigReads as process/grpc-services.ts makes it, for tests of src/rpc.

import { systemClock } from '../io/clock.ts';
import { type BigReadLimits, bigReadLimits } from '../limits.ts';
import { BigReads } from '../rpc/big-reads.ts';
import type { Member } from '../server/member.ts';

export function bigReadsOf(member: Member, limits: Partial<BigReadLimits> = {}): BigReads {
  const { header, nowMs } = member.parts;
  const setTimer = (delayMs: number, callback: () => void): unknown => systemClock.setTimer(delayMs, callback);
  return new BigReads({ ...bigReadLimits, ...limits }, header, { schedule: setImmediate, setTimer, nowMs });
}
