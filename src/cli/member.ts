// keelsonctl member list, add, remove, update and promote. Ids are hexadecimal.

import { rpc } from '../client/rpc.ts';
import { parseMemberUrls } from '../config/member-url.ts';
import { textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError } from './exit.ts';
import { parseUint64 } from './flag.ts';
import { isSerializable } from './get.ts';
import type { MemberChange } from './printer.ts';
import type { Session } from './session.ts';

export async function runMemberList(session: Session, consistency: string): Promise<void> {
  const linearizable = !isSerializable(consistency);
  const client = await session.connect();
  const response = await client.call(rpc.memberList, { linearizable }, { deadlineMs: session.deadlineMs() });
  session.print('memberList', response);
}

export async function runMemberAdd(
  session: Session,
  words: readonly string[],
  flags: { readonly peerUrls: string; readonly learner: boolean },
): Promise<void> {
  if (words.length === 0) throw badArguments('member name not provided');
  if (words.length > 1) {
    const urls = words.map(textOf).filter((word) => /^http/i.test(word));
    throw badArguments(`too many arguments${urls.map((url) => `, did you mean --peer-urls=${url}`).join('')}`);
  }
  const request = { peerUrls: givenUrls(flags.peerUrls), isLearner: flags.learner };
  const client = await session.connect();
  checkUrls(flags.peerUrls);
  const response = await client.call(rpc.memberAdd, request, { deadlineMs: session.deadlineMs() });
  session.print('memberAdd', { name: textOf(words[0]!), peerUrls: textOf(flags.peerUrls), response });
}

export async function runMemberUpdate(session: Session, words: readonly string[], peerUrls: string): Promise<void> {
  const id = memberId(words);
  const urls = givenUrls(peerUrls);
  const client = await session.connect();
  checkUrls(peerUrls);
  const call = client.call(rpc.memberUpdate, { id, peerUrls: urls }, { deadlineMs: session.deadlineMs() });
  session.print('memberChange', { id, change: 'updated in', response: await call });
}

export async function runMemberRemove(session: Session, words: readonly string[]): Promise<void> {
  await changeById(session, words, 'memberRemove', 'removed from');
}

export async function runMemberPromote(session: Session, words: readonly string[]): Promise<void> {
  await changeById(session, words, 'memberPromote', 'promoted in');
}

async function changeById(
  session: Session,
  words: readonly string[],
  method: 'memberRemove' | 'memberPromote',
  change: MemberChange['change'],
): Promise<void> {
  const id = memberId(words);
  const client = await session.connect();
  const response = await client.call(rpc[method], { id }, { deadlineMs: session.deadlineMs() });
  session.print('memberChange', { id, change, response });
}

function memberId(words: readonly string[]): bigint {
  if (words.length !== 1) throw badArguments('member ID is not provided');
  const parsed = parseUint64(words[0]!, 16);
  if (!parsed.ok) throw badArguments(`bad member ID arg (${parsed.error}), expecting ID in Hex`);
  return parsed.value;
}

function givenUrls(list: string): string[] {
  if (list === '') throw badArguments('member peer urls not provided');
  return textOf(list).split(',');
}

/** What clientv3 refuses by itself, before it calls. */
function checkUrls(list: string): void {
  const parsed = parseMemberUrls(textOf(list));
  if (!parsed.ok) throw new ExitError(ExitCode.error, parsed.error);
}
