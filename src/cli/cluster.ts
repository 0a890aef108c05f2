// keelsonctl compaction, alarm, downgrade and move-leader.

import { rpc } from '../client/rpc.ts';
import { AlarmAction, type AlarmResponse, DowngradeAction } from '../proto/etcdserverpb.ts';
import type { Message } from '../proto/message.ts';
import { textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError } from './exit.ts';
import { parseInt64, parseUint64, safeNumber } from './flag.ts';
import type { Session } from './session.ts';

export async function runCompaction(session: Session, words: readonly string[], isPhysical: boolean): Promise<void> {
  if (words.length !== 1) throw badArguments('compaction command needs 1 argument');
  const revision = parseInt64(words[0]!, 10);
  if (!revision.ok) throw new ExitError(ExitCode.error, revision.error);
  const client = await session.connect();
  const request = { revision: safeNumber(revision.value), physical: isPhysical };
  await client.call(rpc.compact, request, { deadlineMs: session.deadlineMs() });
  session.out.line(`compacted revision ${revision.value}`);
}

export async function runAlarmList(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 0) throw badArguments('alarm list command accepts no arguments');
  const client = await session.connect();
  const call = client.call(rpc.alarm, { action: AlarmAction.get }, { deadlineMs: session.deadlineMs() });
  session.print('alarm', await call);
}

/** Every alarm that is on. The answer has no header, because it is the sum of several. */
export async function runAlarmDisarm(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 0) throw badArguments('alarm disarm command accepts no arguments');
  const client = await session.connect();
  const options = { deadlineMs: session.deadlineMs() };
  const disarmed: Message<typeof AlarmResponse>['alarms'] = [];
  const { alarms } = await client.call(rpc.alarm, { action: AlarmAction.get }, options);
  for (const { memberId, alarm } of alarms) {
    const response = await client.call(rpc.alarm, { action: AlarmAction.deactivate, memberId, alarm }, options);
    disarmed.push(...response.alarms);
  }
  session.print('alarm', { header: undefined, alarms: disarmed });
}

export async function runDowngrade(
  session: Session,
  action: 'validate' | 'enable',
  words: readonly string[],
): Promise<void> {
  const [version, ...rest] = words;
  if (version === undefined) throw badArguments('TARGET_VERSION not provided');
  if (rest.length > 0) throw badArguments('too many arguments');
  if (version === '') throw badArguments('target version not provided');
  await askDowngrade(session, action, version);
}

export async function runDowngradeCancel(session: Session): Promise<void> {
  await askDowngrade(session, 'cancel', '');
}

async function askDowngrade(session: Session, action: keyof typeof DowngradeAction, version: string): Promise<void> {
  const client = await session.connect();
  const request = { action: DowngradeAction[action], version };
  const response = await client.call(rpc.downgrade, request, { deadlineMs: session.deadlineMs() });
  session.print('downgrade', { action, response });
}

/** Asks each endpoint whether it leads, and sends the request there. */
export async function runMoveLeader(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 1) throw badArguments('move-leader command needs 1 argument');
  const target = parseUint64(words[0]!, 16);
  if (!target.ok) throw badArguments(target.error);
  await session.configure();
  const { endpoints } = session.globals;
  for (const endpoint of endpoints) {
    const client = await session.connect([endpoint]);
    const options = { deadlineMs: session.deadlineMs() };
    const { header, leader } = await client.call(rpc.status, {}, options);
    if (header?.memberId !== leader) continue;
    const response = await client.call(rpc.moveLeader, { targetId: target.value }, options);
    session.print('moveLeader', { leader, target: target.value, response });
    return;
  }
  throw badArguments(`no leader endpoint given at [${endpoints.map(textOf).join(' ')}]`);
}
