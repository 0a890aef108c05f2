// keelsonctl watch: prints events as they come, or runs a program for each; with -i it reads "watch …" and "progress" lines and
// serves all watches over one stream.

import { spawnSync } from 'node:child_process';
import { type Watch, WatchStream } from '../client/watch.ts';
import type { Message } from '../proto/message.ts';
import type { Event } from '../proto/mvccpb.ts';
import { byteString, bytesOf, quoteBytes, textOf } from './byte-text.ts';
import { Command } from './command.ts';
import { CommandLineError, readCommandLine } from './command-line.ts';
import { badArguments, ExitCode, ExitError, failingWith } from './exit.ts';
import { prefixEnd } from './key-range.ts';
import { LineReader } from './line-reader.ts';
import { complain } from './output.ts';
import { eventNames } from './printer.ts';
import type { Session } from './session.ts';
import { type WatchArguments, watchArguments } from './watch-arguments.ts';
import { type WatchFlags, watchFlags } from './watch-flags.ts';
import { splitWords } from './words.ts';

export async function runWatch(session: Session, words: readonly string[], flags: WatchFlags): Promise<void> {
  const fromEnvironment = environmentKeys(session);
  if (flags.interactive) return watchInteractively(session, fromEnvironment);
  const given = session.argumentWords;
  const rawWords = given.slice(given.findIndex((word) => 'watch'.startsWith(word) && word !== '') + 1);
  const parsed = watchArguments(rawWords, words, fromEnvironment);
  const client = await session.connect();
  const stream = new WatchStream(client);
  const watch = startWatch(stream, parsed.words, flags);
  await printWatch(session, watch, parsed.program);
  throw new ExitError(ExitCode.interrupted, 'watch is canceled by the server');
}

function environmentKeys({ environment }: Session): string[] {
  const variable = (name: string): string =>
    byteString(environment[`KEELSONCTL_${name}`] ?? environment[`ETCDCTL_${name}`] ?? '');
  const key = variable('WATCH_KEY');
  const end = variable('WATCH_RANGE_END');
  if (key === '' && end !== '') {
    throw badArguments(`ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=${quoteBytes(bytesOf(end))}`);
  }
  return [key, end].filter((word) => word !== '');
}

async function watchInteractively(session: Session, fromEnvironment: readonly string[]): Promise<void> {
  const stream = new WatchStream(await session.connect());
  const lines = new LineReader();
  const { promise: printingFailed, reject: failPrinting } = Promise.withResolvers<never>();
  for (;;) {
    const line = await Promise.race([nextLine(lines), printingFailed]);
    const words = splitWords(line);
    const refuse = (reason: string): void => complain(`Invalid command${reason}\n`);
    if (words.length === 0) refuse(`: ${textOf(line)} (watch and progress supported)`);
    else if (words[0] === 'progress') stream.requestProgress();
    else if (words[0] !== 'watch') refuse(` ${textOf(line)} (only support watch)`);
    else if (words.length < 2 && fromEnvironment.length === 0) {
      refuse(` ${textOf(line)} (command type or key is not provided)`);
    } else {
      const { parsed, flags } = await readWatchLine(words, fromEnvironment);
      try {
        // A watch that ends takes the program with it only when printing fails.
        printWatch(session, startWatch(stream, parsed.words, flags), parsed.program).catch(failPrinting);
      } catch (error) {
        if (!(error instanceof ExitError)) throw error;
        refuse(` ${textOf(line)} (${error.message})`);
      }
    }
  }
}

async function nextLine(lines: LineReader): Promise<string> {
  const describe = (reason: string): string => `error reading watch request line: ${reason}`;
  const line = await failingWith(ExitCode.invalidInput, lines.next(), describe);
  if (line === null) throw new ExitError(ExitCode.invalidInput, describe('EOF'));
  return line;
}

async function readWatchLine(
  words: readonly string[],
  fromEnvironment: readonly string[],
): Promise<{ parsed: WatchArguments; flags: WatchFlags }> {
  let result: { parsed: WatchArguments; flags: WatchFlags } | null = null;
  const program = Command.program('', '');
  program.add<WatchFlags>({
    use: 'watch',
    short: '',
    flags: watchFlags(),
    run: async (own, flags) => {
      result = { parsed: watchArguments(words.slice(1), own, fromEnvironment), flags };
    },
  });
  const reading = lineOf(program, words);
  if ('command' in reading) await reading.command.run(reading.words);
  if (result === null) throw badArguments('bad number of arguments');
  return result;
}

/** A wrong flag of a line is a wrong argument: no usage of a program is shown. */
function lineOf(program: Command, words: readonly string[]): ReturnType<typeof readCommandLine> {
  try {
    return readCommandLine(program, words);
  } catch (error) {
    throw error instanceof CommandLineError ? badArguments(error.message) : error;
  }
}

function startWatch(stream: WatchStream, words: readonly string[], flags: WatchFlags): Watch {
  const key = bytesOf(words[0]!);
  const common = {
    startRevision: Math.max(0, flags.rev),
    prevKv: flags.prevKv,
    progressNotify: flags.progressNotify,
  };
  if (words.length === 2) {
    if (flags.prefix) throw badArguments('`range_end` and `--prefix` are mutually exclusive');
    return stream.watch({ key, rangeEnd: bytesOf(words[1]!), ...common });
  }
  if (!flags.prefix) return stream.watch({ key, ...common });
  if (key.length > 0) return stream.watch({ key, rangeEnd: prefixEnd(key), ...common });
  const zero = Buffer.from([0]);
  return stream.watch({ key: zero, rangeEnd: zero, ...common });
}

async function printWatch(session: Session, watch: Watch, program: readonly string[]): Promise<void> {
  for await (const { response, error } of watch) {
    const { header, events } = response;
    if (error !== null) complain(`watch was canceled (${error.message})\n`);
    else if (events.length === 0) session.out.line(`progress notify: ${header?.revision ?? 0}`);
    session.print('watch', response);
    session.out.flush();
    if (program.length > 0) for (const event of events) runFor(event, header?.revision ?? 0, program);
  }
}

function runFor({ type, kv }: Message<typeof Event>, revision: number, program: readonly string[]): void {
  const [file, ...words] = program.map(textOf);
  const { status, signal, error } = spawnSync(file!, words, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...process.env,
      ETCD_WATCH_REVISION: String(revision),
      ETCD_WATCH_EVENT_TYPE: `"${eventNames[type] ?? type}"`,
      ETCD_WATCH_KEY: quoteBytes(kv?.key ?? Buffer.alloc(0)),
      ETCD_WATCH_VALUE: quoteBytes(kv?.value ?? Buffer.alloc(0)),
    },
  });
  if (status === 0) return;
  const reason = error?.message ?? (signal === null ? `exit status ${status}` : `signal: ${signal}`);
  const quoted = program.map((word) => quoteBytes(bytesOf(word))).join(' ');
  complain(`command [${quoted}] error (${reason})\n`);
  throw new ExitError(ExitCode.error, null);
}
