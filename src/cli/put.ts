// keelsonctl put, and the request of a put in a txn.

import { rpc } from '../client/rpc.ts';
import type { PutRequest } from '../proto/kv-schema.ts';
import type { MessageInit } from '../proto/message.ts';
import { bytesOf } from './byte-text.ts';
import { badArguments, ExitCode, failingWith } from './exit.ts';
import { parseInt64 } from './flag.ts';
import type { PutFlags } from './kv-flags.ts';
import type { Session } from './session.ts';

export async function runPut(session: Session, words: readonly string[], flags: PutFlags): Promise<void> {
  const request = await putRequest(words, flags, () => readValue(session));
  const client = await session.connect();
  session.print('put', await client.call(rpc.put, request, { deadlineMs: session.deadlineMs() }));
}

const tooFew = 'put command needs 1 argument and input from stdin or 2 arguments';

/** A value that is more than a request may hold is read no further: the client refuses it. */
async function readValue(session: Session): Promise<Buffer> {
  await session.configure();
  const { readInput } = await import('./input.ts');
  return failingWith(ExitCode.badArguments, readInput(session.requestBytesMax), (reason) => `${tooFew} (${reason})`);
}

/** `inputValue`: what stdin holds, for a put without a value. */
export async function putRequest(
  words: readonly string[],
  flags: PutFlags,
  inputValue: () => Promise<Buffer>,
): Promise<MessageInit<typeof PutRequest>> {
  if (words.length === 0) throw badArguments(tooFew);
  if (flags.ignoreValue && words.length > 1) {
    throw badArguments("put command needs only 1 argument when 'ignore-value' is set");
  }
  let value: Buffer | undefined;
  if (!flags.ignoreValue) {
    value = words.length > 1 ? bytesOf(words[1]!) : await inputValue();
    if (words.length === 1 && value.length === 0) throw badArguments(tooFew);
  }
  const lease = parseInt64(flags.lease, 16);
  if (!lease.ok) throw badArguments(`bad lease ID (${lease.error}), expecting ID in Hex`);
  return {
    key: bytesOf(words[0]!),
    value,
    lease: lease.value,
    prevKv: flags.prevKv,
    ignoreValue: flags.ignoreValue,
    ignoreLease: flags.ignoreLease,
  };
}
