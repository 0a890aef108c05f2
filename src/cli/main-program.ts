// What both programs do around their commands: read the command line, run, print what went wrong as cobra does, and answer the
// exit code of etcd's tools.

import type { Command } from 'commander';
import { FatalError } from '../base/fatal.ts';
import { CommandLineError, runCommandLine } from './command-line.ts';
import { ExitCode, ExitError } from './exit.ts';
import type { Output } from './output.ts';
import { commandPath, usageText } from './usage.ts';

export async function runMain(
  program: Command,
  words: readonly string[],
  out: Output,
  afterHelp: string | null,
): Promise<number> {
  try {
    await runCommandLine(program, words, (text) => {
      out.text(text);
      if (afterHelp !== null) out.line(afterHelp);
    });
    out.flush();
    return 0;
  } catch (error) {
    return report(error, out);
  }
}

function report(error: unknown, out: Output): number {
  if (error instanceof ExitError && error.code === ExitCode.brokenPipe) return error.code;
  out.flush();
  // What a server answered, what the disk did, what the command line asks: the rest is a bug and shows its stack.
  const isExpected =
    error instanceof ExitError ||
    error instanceof FatalError ||
    (error instanceof Error && error.name === 'EtcdClientError');
  if (!isExpected) throw error;
  if (!(error instanceof ExitError && error.isSilent)) process.stderr.write(`Error: ${error.message}\n`);
  if (error instanceof CommandLineError) {
    const { command } = error;
    const hint = `Run '${commandPath(command)} --help' for usage.\n`;
    process.stderr.write(error.isCommandUnknown ? hint : usageText(command, false));
  }
  // A damaged log or database has a code of its own, the server's.
  if (error instanceof FatalError) return error.exitCode;
  return error instanceof ExitError ? error.code : ExitCode.error;
}
