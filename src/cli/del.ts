// keelsonctl del, and the request of a del in a txn. An end of the range that was perhaps meant as a second key gives two
// seconds to change one's mind.

import { rpc } from '../client/rpc.ts';
import type { DeleteRangeRequest } from '../proto/kv-schema.ts';
import type { MessageInit } from '../proto/message.ts';
import { bytesOf, quoteBytes } from './byte-text.ts';
import { badArguments } from './exit.ts';
import { checkPrefixAndFromKey, keyRange } from './key-range.ts';
import type { DelFlags } from './kv-flags.ts';
import { complain } from './output.ts';
import type { Session } from './session.ts';

export async function runDel(session: Session, words: readonly string[], flags: DelFlags): Promise<void> {
  const request = await delRequest(words, flags);
  const client = await session.connect();
  session.print('del', await client.call(rpc.deleteRange, request, { deadlineMs: session.deadlineFromNowMs() }));
}

export async function delRequest(
  words: readonly string[],
  flags: DelFlags,
): Promise<MessageInit<typeof DeleteRangeRequest>> {
  if (words.length === 0 || words.length > 2) {
    throw badArguments('del command needs one argument as key and an optional argument as range_end');
  }
  checkPrefixAndFromKey(flags);
  const range = keyRange(words, flags);
  if (words.length > 1 && !flags.range) {
    const [from, to] = words.map((word) => quoteBytes(bytesOf(word)));
    complain(
      `Warning: Keys between ${from} and ${to} will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide \`--range\` flag to avoid the delay.\n`,
    );
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  return { ...range, prevKv: flags.prevKv };
}
