// A snapshot or database file on disk, opened for the bbolt reader, with the errors that etcd's tools give for one that is not
// there.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import {
  type BoltBucket,
  type BoltCursor,
  type BoltError,
  type BoltReader,
  type BoltResult,
  CursorStep,
  openBolt,
  type RandomAccessFile,
} from '../snapshot/bolt-reader.ts';
import { isRevisionKey } from '../snapshot/schema.ts';
import { bytesOf, textOf } from './byte-text.ts';
import { ExitCode, ExitError } from './exit.ts';
import { reasonOf } from './system-error.ts';

export interface SnapshotFile extends RandomAccessFile {
  readonly path: string;
  close(): void;
}

/** `verb`: what is said to fail, "stat" or "open". */
export function openSnapshotFile(byteText: string, verb: 'stat' | 'open'): SnapshotFile {
  const path = textOf(byteText);
  let fd: number;
  try {
    fd = openSync(bytesOf(byteText), 'r');
  } catch (error) {
    throw new ExitError(ExitCode.error, `${verb} ${path}: ${reasonOf(error)}`);
  }
  const { size } = fstatSync(fd);
  return {
    path,
    size,
    read: (offset, length) => {
      const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, size - offset)));
      let done = 0;
      while (done < bytes.length) {
        const count = readSync(fd, bytes, done, bytes.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
      return bytes.subarray(0, done);
    },
    close: () => closeSync(fd),
  };
}

export function openDatabase(file: SnapshotFile): BoltReader {
  return orDamaged(file.path, openBolt(file));
}

/** Ends the program when the file is damaged. */
export function orDamaged<T>(path: string, result: BoltResult<T>): T {
  if (result.ok) return result.value;
  throw damaged(path, result.error);
}

export function damaged(path: string, error: BoltError): ExitError {
  return new ExitError(ExitCode.error, `${path} is no database or damaged: ${error.reason} (at byte ${error.offset})`);
}

/** The entries of a bucket in order: the cursor itself, at each. */
export function* entriesOf(path: string, bucket: BoltBucket): Generator<BoltCursor, void, undefined> {
  const cursor = bucket.cursor();
  while (cursor.next() === CursorStep.entry) {
    if (cursor.isBucket) throw damaged(path, { offset: cursor.entryOffset(), reason: 'a bucket among entries' });
    yield cursor;
  }
  if (cursor.error !== null) throw damaged(path, cursor.error);
}

/** The rows of the bucket `key`, in revision order. */
export function* rowsOf(path: string, reader: BoltReader): Generator<BoltCursor, void, undefined> {
  const bucket = orDamaged(path, reader.bucket(Buffer.from('key')));
  if (bucket === null) throw damaged(path, { offset: 0, reason: 'there is no bucket "key"' });
  for (const cursor of entriesOf(path, bucket)) {
    if (!isRevisionKey(cursor.key)) throw damaged(path, { offset: cursor.entryOffset(), reason: 'not a revision key' });
    yield cursor;
  }
}
