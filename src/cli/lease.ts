// keelsonctl lease grant, revoke, timetolive, list, keep-alive. Ids are hexadecimal.

import { keepAlive, keepAliveOnce } from '../client/lease-keeper.ts';
import { rpc } from '../client/rpc.ts';
import { badArguments, ExitCode, failingWith } from './exit.ts';
import { parseInt64 } from './flag.ts';
import { leaseText } from './printer.ts';
import type { Session } from './session.ts';

export async function runGrant(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 1) throw badArguments('lease grant command needs TTL argument');
  const ttl = parseInt64(words[0]!, 10);
  if (!ttl.ok) throw badArguments(`bad TTL (${ttl.error})`);
  const client = await session.connect();
  const call = client.call(rpc.leaseGrant, { ttl: ttl.value }, { deadlineMs: session.deadlineMs() });
  session.print('grant', await failingWith(ExitCode.error, call, (reason) => `failed to grant lease (${reason})`));
}

export async function runRevoke(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 1) throw badArguments('lease revoke command needs 1 argument');
  const id = leaseId(words[0]!);
  const client = await session.connect();
  const call = client.call(rpc.leaseRevoke, { id }, { deadlineMs: session.deadlineMs() });
  const response = await failingWith(ExitCode.error, call, (reason) => `failed to revoke lease (${reason})`);
  session.print('revoke', { id, response });
}

export async function runTimeToLive(session: Session, words: readonly string[], withKeys: boolean): Promise<void> {
  if (words.length !== 1) throw badArguments('lease timetolive command needs lease ID as argument');
  const client = await session.connect();
  const call = client.call(rpc.leaseTimeToLive, { id: leaseId(words[0]!), keys: withKeys });
  session.print('timeToLive', { response: await failingWith(ExitCode.badConnection, call), withKeys });
}

export async function runList(session: Session): Promise<void> {
  const client = await session.connect();
  session.print('leases', await failingWith(ExitCode.badConnection, client.call(rpc.leaseLeases, {})));
}

export async function runKeepAlive(session: Session, words: readonly string[], isOnce: boolean): Promise<void> {
  if (words.length !== 1) throw badArguments('lease keep-alive command needs lease ID as argument');
  const id = leaseId(words[0]!);
  const client = await session.connect();
  if (isOnce) {
    session.print('keepAlive', await failingWith(ExitCode.badConnection, keepAliveOnce(client, id)));
    return;
  }
  for await (const response of keepAlive(client, id)) {
    session.print('keepAlive', response);
    session.out.flush();
  }
  if (session.isSimple) session.out.line(`lease ${leaseText(id)} expired or revoked.`);
}

function leaseId(word: string): bigint {
  const parsed = parseInt64(word, 16);
  if (!parsed.ok) throw badArguments(`bad lease ID arg (${parsed.error}), expecting ID in Hex`);
  return parsed.value;
}
