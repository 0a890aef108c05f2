// What both programs do around their commands: read the command line, run, print what went wrong as cobra does, and answer the
// exit code of etcd's tools.

import { FatalError } from '../base/fatal.ts';
import type { Command } from './command.ts';
import { CommandLineError, runCommandLine } from './command-line.ts';
import { ExitCode, ExitError } from './exit.ts';
import { complain, type Output } from './output.ts';
import { isSystemError, messageOf } from './system-error.ts';
import { usageText } from './usage.ts';

export async function runMain(
  program: Command,
  words: readonly string[],
  out: Output,
  afterHelp: string | null,
): Promise<number> {
  try {
    const print = (text: string): void => {
      out.text(text);
      if (afterHelp !== null) out.line(afterHelp);
    };
    await runCommandLine(program, words, print, complain);
    out.flush();
    return 0;
  } catch (error) {
    return report(error, out);
  }
}

function report(error: unknown, out: Output): number {
  if (error instanceof ExitError && error.code === ExitCode.brokenPipe) return error.code;
  try {
    out.flush();
  } catch (lost) {
    // The first error decides the exit code.
    if (lost instanceof ExitError && !lost.isSilent) complain(`Error: ${lost.message}\n`);
  }
  // What a server answered, what the system refused, what the command line asks: the rest is a bug and shows its stack.
  const isExpected =
    error instanceof ExitError ||
    error instanceof FatalError ||
    isSystemError(error) ||
    (error instanceof Error && error.name === 'EtcdClientError');
  if (!isExpected) throw error;
  if (!(error instanceof ExitError && error.isSilent)) complain(`Error: ${messageOf(error)}\n`);
  if (error instanceof CommandLineError) {
    const { command } = error;
    complain(error.isCommandUnknown ? `Run '${command.path} --help' for usage.\n` : usageText(command, false));
  }
  // A damaged log or database has a code of its own, the server's.
  if (error instanceof FatalError) return error.exitCode;
  return error instanceof ExitError ? error.code : ExitCode.error;
}
