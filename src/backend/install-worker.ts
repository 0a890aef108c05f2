// The thread that makes a database of a leader's snapshot (snapshot-conversion.ts). Started by install.ts; it ends when it is done, and
// only then has it let go of the files.

import { armFailpoints, failpoint } from '../base/failpoint.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { processFailpointControl } from '../io/failpoint-http.ts';
import { errorText, nodeDisk } from '../io/file.ts';
import { ThreadHost } from '../io/flusher-thread.ts';
import { failureOf } from './flusher.ts';
import type { FromInstall, InstallWorkerData } from './install.ts';
import { convertSnapshot, openTarget } from './snapshot-conversion.ts';

const host = new ThreadHost<never, FromInstall>();
const { snapshot, target, failpoints } = host.data as InstallWorkerData;
if (failpoints !== null) armFailpoints(processFailpointControl, failpoints);

try {
  failpoint('applyBeforeOpenSnapshot');
  convertSnapshot(nodeDisk, snapshot, openTarget(target));
  host.post({ kind: 'converted' });
} catch (error) {
  const failure = failureOf(error);
  const isOfDisk = !(error instanceof FatalError) && error instanceof Error && 'syscall' in error;
  if (isOfDisk)
    host.post({ kind: 'failed', exitCode: ExitCode.backendWrite, message: `a snapshot: ${errorText(error)}` });
  else if (failure.kind === 'failed') host.post(failure);
}
