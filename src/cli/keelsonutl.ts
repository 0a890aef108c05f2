// keelsonutl: etcdutl's command line for keelson's files, and dump-log. Output and exit codes are etcdutl 3.7's
// (keelsonutl.peer-test.ts). The tree is in utl-commands.ts.

import { processArguments } from './byte-text.ts';
import { runMain } from './main-program.ts';
import { Output } from './output.ts';
import { utlProgram } from './utl-commands.ts';

const out = new Output();
process.exit(await runMain(utlProgram(out), processArguments(), out, null));
