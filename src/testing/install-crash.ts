// The child of the kill test in server/snapshot-recovery.test.ts: a member, as far as database and log go, that gets a leader's snapshot: it
// saves the file, writes the marker, installs. Prints each stage when it is durable; runs to its end or until it is killed.
//   node install-crash.ts FOLDER INDEX TERM [STAGE]   (FOLDER/sent.db: what the leader sends, FOLDER/snap, FOLDER/wal; it goes no
//                                                      further than the stage)

import { readFileSync, writeSync } from 'node:fs';
import { Backend } from '../backend/backend.ts';
import { nodeDisk } from '../io/file.ts';
import { openStreamFile } from '../io/stream-file.ts';
import { removeSnapshots, snapshotPath } from '../server/snapshot-files.ts';
import { FileReceipt } from '../server/snapshot-receipt.ts';
import { openWal, type Wal } from '../wal/wal.ts';
import { crashOptions } from './backend-crash.ts';
import { walOptions } from './wal-fixture.ts';

const pieceBytes = 16_384;

const [folder, index, term, lastStage] = process.argv.slice(2);

function say(stage: string): void {
  writeSync(1, `${stage}\n`);
  if (stage === lastStage) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

async function save(directory: string, sent: string, index: number): Promise<void> {
  const files = { disk: nodeDisk, openStreamFile };
  const receipt = new FileReceipt({ files, directory, index, nowMs: () => performance.now(), ended: () => {} });
  const bytes = readFileSync(sent);
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    receipt.write(bytes.subarray(at, at + pieceBytes));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise<void>((resolve, reject) => receipt.end((error) => (error === null ? resolve() : reject(error))));
}

function mark(wal: Wal, index: number, term: number): void {
  wal.append({ term, vote: 0n, commit: index }, [], { index, term, reset: true });
  const ticket = wal.sync(() => {});
  if (!wal.waitDurable(ticket, 30_000)) throw new Error('the log is not durable');
}

export function openInstallWal(folder: string, startIndex: number | null): ReturnType<typeof openWal> {
  return openWal(walOptions(nodeDisk, { directory: `${folder}/wal`, startIndex }));
}

async function run(folder: string, index: number, term: number): Promise<void> {
  const directory = `${folder}/snap`;
  const backend = Backend.open(crashOptions(`${directory}/keelson.mdb`));
  const { wal } = openInstallWal(folder, backend.consistentIndex);
  say('saving');
  await save(directory, `${folder}/sent.db`, index);
  say('saved');
  mark(wal, index, term);
  say('marked');
  await new Promise<void>((resolve) => backend.install({ path: snapshotPath(directory, index), index, term }, resolve));
  say('installed');
  removeSnapshots(nodeDisk, directory, index);
  say('removed');
}

if (folder !== undefined && process.argv[1]?.endsWith('install-crash.ts') === true) {
  await run(folder, Number(index), Number(term));
  process.exit(0);
}
