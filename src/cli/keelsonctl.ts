// keelsonctl: etcdctl's command line over src/client. Commands, flags, environment, output and exit codes are etcdctl 3.7's
// (src/cli/keelsonctl.peer-test.ts holds the two beside each other). The tree is in ctl-commands.ts, each command in a module of
// its own.

import { processArguments } from './byte-text.ts';
import { CommandLineError, runCommandLine } from './command-line.ts';
import { ctlProgram } from './ctl-commands.ts';
import { ExitCode, ExitError } from './exit.ts';
import { Output } from './output.ts';
import { Session } from './session.ts';
import { commandPath, usageText } from './usage.ts';

async function main(): Promise<number> {
  const out = new Output();
  const words = processArguments();
  let session: Session | null = null;
  const program = ctlProgram((command) => {
    session ??= new Session(program, words, process.env, out);
    session.enter(command);
    return session;
  });
  try {
    await runCommandLine(program, words, (text) => {
      out.text(text);
      out.line('Use "keelsonctl options" for the flags that every command takes.');
    });
    out.flush();
    return 0;
  } catch (error) {
    return report(error, out);
  } finally {
    (session as Session | null)?.close();
  }
}

function report(error: unknown, out: Output): number {
  if (error instanceof ExitError && error.code === ExitCode.brokenPipe) return error.code;
  out.flush();
  // Errors of the client are what a call was answered; anything else is a bug, with its stack.
  const isExpected = error instanceof ExitError || (error instanceof Error && error.name === 'EtcdClientError');
  if (!isExpected) throw error;
  if (!(error instanceof ExitError && error.isSilent)) process.stderr.write(`Error: ${error.message}\n`);
  if (error instanceof CommandLineError) {
    const { command } = error;
    const hint = `Run '${commandPath(command)} --help' for usage.\n`;
    process.stderr.write(error.isCommandUnknown ? hint : usageText(command, false));
  }
  return error instanceof ExitError ? error.code : ExitCode.error;
}

process.exit(await main());
