// keelsonctl snapshot save: the member's database into a file, which appears under its name only when it is whole and synced.
// Whole: the stream's last 32 bytes are the SHA-256 of what came before, and they are checked here (etcdctl looks at the size
// alone).

import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import type { EtcdClient } from '../client/client.ts';
import { rpc } from '../client/rpc.ts';
import { formatDuration, humanBytes } from '../config/go-value.ts';
import { textOf } from './byte-text.ts';
import { badArguments, ExitCode, ExitError, failingWith } from './exit.ts';
import { logLine } from './log-line.ts';
import type { Session } from './session.ts';
import { reasonOf } from './system-error.ts';

const hashBytes = 32;
/** The hash follows whole pages of at least this size. */
const sectorBytes = 512;

export async function runSnapshotSave(session: Session, words: readonly string[]): Promise<void> {
  if (words.length !== 1) throw badArguments('snapshot save expects one argument <filename>');
  await session.configure();
  const { endpoints } = session.globals;
  if (endpoints.length !== 1) {
    const list = endpoints.map(textOf).join(' ');
    const reason = `snapshot must be requested to one selected node, not multiple [${list}]`;
    throw new ExitError(ExitCode.interrupted, reason);
  }
  const client = await session.connect();
  // Only a timeout that was asked for: a database takes as long as it takes.
  const deadlineMs = session.isGiven('command-timeout') ? session.deadlineMs() : undefined;
  const file = textOf(words[0]!);
  const version = await failingWith(ExitCode.interrupted, save(client, file, deadlineMs));
  session.out.line(`Snapshot saved at ${file}`);
  if (version !== '') session.out.line(`Server version ${version}`);
}

async function save(client: EtcdClient, file: string, deadlineMs: number | undefined): Promise<string> {
  const part = `${file}.part`;
  const startNs = process.hrtime.bigint();
  const fd = openPart(part);
  try {
    logLine('info', 'created temporary db file', { path: part });
    const { byteCount, version } = await download(client, fd, deadlineMs);
    fsyncSync(fd);
    logLine('info', 'fetched snapshot', {
      endpoint: client.endpoints[0],
      size: humanBytes(byteCount),
      took: formatDuration(process.hrtime.bigint() - startNs),
      'etcd-version': version,
    });
    renameSync(part, file);
    syncDirectory(path.dirname(file));
    logLine('info', 'saved', { path: file });
    return version;
  } finally {
    closeSync(fd);
    rmSync(part, { force: true });
  }
}

function openPart(part: string): number {
  try {
    return openSync(part, 'w', 0o600);
  } catch (error) {
    throw new Error(`could not open ${part} (open ${part}: ${reasonOf(error)})`);
  }
}

async function download(
  client: EtcdClient,
  fd: number,
  deadlineMs: number | undefined,
): Promise<{ byteCount: number; version: string }> {
  const hash = createHash('sha256');
  let version = '';
  let byteCount = 0;
  // The hash itself is not hashed, and nobody knows that a byte belongs to it before the stream ends.
  let tail: Buffer = Buffer.alloc(0);
  for await (const response of client.stream(rpc.snapshot, {}, { deadlineMs })) {
    version = response.version || version;
    let position = 0;
    while (position < response.blob.length) position += writeSync(fd, response.blob, position);
    byteCount += response.blob.length;
    const known = Buffer.concat([tail, response.blob]);
    const end = Math.max(0, known.length - hashBytes);
    hash.update(known.subarray(0, end));
    tail = Buffer.from(known.subarray(end));
  }
  if (byteCount % sectorBytes !== hashBytes) throw new Error(`sha256 checksum not found [bytes: ${byteCount}]`);
  const computed = hash.digest();
  if (!computed.equals(tail)) {
    throw new Error(
      `the snapshot was damaged on its way: expected sha256 ${tail.toString('hex')}, got ${computed.toString('hex')}`,
    );
  }
  return { byteCount, version };
}

/** The rename is durable only then. */
function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
