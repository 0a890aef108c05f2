// keelsonctl: etcdctl's command line over src/client. Commands, flags, environment, output and exit codes are etcdctl 3.7's
// (keelsonctl.peer-test.ts holds the two beside each other). The tree is in ctl-commands.ts, each command in a module of its own.

import { processArguments } from './byte-text.ts';
import { ctlProgram } from './ctl-commands.ts';
import { runMain } from './main-program.ts';
import { Output } from './output.ts';
import { Session } from './session.ts';

const out = new Output();
const words = processArguments();
let session: Session | null = null;
const program = ctlProgram((command) => {
  session ??= new Session(program, words, process.env, out);
  session.enter(command);
  return session;
});
const code = await runMain(program, words, out, 'Use "keelsonctl options" for the flags that every command takes.');
// The type checker does not see that the callback above sets it.
(session as Session | null)?.close();
process.exit(code);
