// keelsonctl txn: comparisons, then requests for when they hold, then requests for when they do not, a line each and an empty
// line after each part. The requests are get, put and del with their flags.

import { rpc } from '../client/rpc.ts';
import type { Compare, RequestOpSchema } from '../proto/kv-schema.ts';
import type { MessageInit } from '../proto/message.ts';
import { textOf, trimSpace } from './byte-text.ts';
import { Command } from './command.ts';
import { CommandLineError, readCommandLine } from './command-line.ts';
import { parseCompare } from './compare.ts';
import { delRequest } from './del.ts';
import { badArguments, ExitCode, ExitError, failingWith } from './exit.ts';
import { getRequest } from './get.ts';
import { type DelFlags, delFlags, type GetFlags, getFlags, type PutFlags, putFlags } from './kv-flags.ts';
import { LineReader } from './line-reader.ts';
import { complain } from './output.ts';
import { putRequest } from './put.ts';
import type { Session } from './session.ts';
import { usageText } from './usage.ts';
import { splitWords } from './words.ts';

type Operation = MessageInit<RequestOpSchema>;

export async function runTxn(session: Session, words: readonly string[], isInteractive: boolean): Promise<void> {
  if (words.length !== 0) throw badArguments('txn command does not accept argument');
  const client = await session.connect();
  const lines = new LineReader();
  const part = async <T>(title: string, parse: (line: string) => Promise<T>): Promise<T[]> => {
    if (isInteractive) {
      session.out.line(title);
      session.out.flush();
    }
    const items: T[] = [];
    for (;;) {
      const line = await failingWith(ExitCode.invalidInput, lines.next());
      if (line === null) throw new ExitError(ExitCode.invalidInput, 'EOF');
      const trimmed = trimSpace(line);
      if (trimmed === '') return items;
      items.push(await parse(trimmed));
    }
  };
  const compare = await part<MessageInit<typeof Compare>>('compares:', async (line) => parseCompare(line));
  const success = await part('success requests (get, put, del):', parseOperation);
  const failure = await part('failure requests (get, put, del):', parseOperation);
  session.print('txn', await client.call(rpc.txn, { compare, success, failure }));
}

export async function parseOperation(line: string): Promise<Operation> {
  const words = splitWords(line);
  if (words.length < 2) {
    throw new ExitError(ExitCode.invalidInput, `invalid txn compare request: ${textOf(line)}`);
  }
  const operations: Operation[] = [];
  const program = Command.program('', '');
  program.add<GetFlags>({
    use: 'get [options] <key> [range_end]',
    short: 'Reads a key or a range of keys',
    flags: getFlags(),
    run: async (rest, flags) => {
      operations.push({ requestRange: getRequest(rest, flags) });
    },
  });
  program.add<PutFlags>({
    use: 'put [options] <key> <value>',
    short: 'Sets a key to a value',
    flags: putFlags(),
    // Stdin is taken by the txn itself.
    run: async (rest, flags) => {
      operations.push({ requestPut: await putRequest(rest, flags, async () => Buffer.alloc(0)) });
    },
  });
  program.add<DelFlags>({
    use: 'del [options] <key> [range_end]',
    short: 'Deletes a key or the keys of [key, range_end)',
    flags: delFlags(),
    run: async (rest, flags) => {
      operations.push({ requestDeleteRange: await delRequest(rest, flags) });
    },
  });
  const unreadable = new ExitError(ExitCode.invalidInput, `invalid txn request: ${textOf(line)}`);
  try {
    const reading = readCommandLine(program, words);
    if (!('command' in reading)) throw unreadable;
    await reading.command.run(reading.words);
  } catch (error) {
    if (!(error instanceof CommandLineError)) throw error;
    if (!error.isCommandUnknown) complain(`${usageText(error.command, false)}\n`);
    throw unreadable;
  }
  if (operations.length !== 1) throw unreadable;
  return operations[0]!;
}
