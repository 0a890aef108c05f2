// The checks of an LMDB data file before it is opened, since the lmdb package (3.5.6) ends the process with a segmentation
// fault when its native open fails: it frees the environment twice. Also the map of a file that was cut short raises SIGBUS
// at the first read beyond its end. So everything that can be seen from outside is looked at here and becomes a FatalError.
// Not a full check of the tree.
//
// A meta page of data format 2 (LMDB's two newest commits; pages 0 and 1), little-endian:
//
//   offset  bytes
//        0      8  page number, 0 or 1
//       18      2  page flags: 8, a meta page
//       24      4  magic 0xbeefc0de
//       28      4  data format: 2
//       48      4  page size in bytes
//       88      8  root page of the table of free pages, all ones for none
//      136      8  root page of the table of tables, all ones for none
//      144      8  last page that this commit uses
//      152      8  transaction number

import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statfsSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbOpenFreeBytesMin, lmdbPageBytes, lmdbShortBytesMax } from '../limits.ts';

const MAGIC = 0xbeefc0de;
const DATA_FORMAT = 2;
const META_FLAG = 8;
const META_BYTES = 160;
const NO_PAGE = 0xffffffffffffffffn;

/** Throws FatalError unless the file at `path` can be opened as a database, or be created. */
export function checkLmdbFile(path: string, mapBytes: number): void {
  checkAddressSpace(path, mapBytes);
  const folder = dirname(path);
  let descriptor: number;
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    throw new FatalError(ExitCode.backendWrite, `cannot open the database ${path}: ${String(error)}`, { cause: error });
  }
  try {
    const fileBytes = fstatSync(descriptor).size;
    if (fileBytes > 0) checkMetas(path, descriptor, fileBytes);
    else checkSpace(path);
  } finally {
    closeSync(descriptor);
  }
}

/** A new file and its lock file must fit: the lock file is mapped, and a hole in it that cannot be filled raises SIGBUS. */
function checkSpace(path: string): void {
  const stat = statfsSync(dirname(path));
  if (stat.bavail * stat.bsize >= lmdbOpenFreeBytesMin) return;
  throw new FatalError(ExitCode.diskFull, `the disk of ${path} is full: cannot create the database`);
}

function checkMetas(path: string, descriptor: number, fileBytes: number): void {
  const meta = Buffer.alloc(META_BYTES);
  let lastPage = 0;
  let newest = -1;
  let roots: bigint[] = [];
  for (let page = 0; page < 2; page++) {
    const read = readSync(descriptor, meta, 0, META_BYTES, page * lmdbPageBytes);
    if (read < META_BYTES || meta.readUInt32LE(24) !== MAGIC || (meta.readUInt16LE(18) & META_FLAG) === 0) {
      throw corrupt(path, `no meta page at offset ${page * lmdbPageBytes}`);
    }
    if (meta.readUInt32LE(28) !== DATA_FORMAT) throw corrupt(path, `data format ${meta.readUInt32LE(28)}, not 2`);
    if (meta.readUInt32LE(48) !== lmdbPageBytes) throw corrupt(path, `page size ${meta.readUInt32LE(48)}`);
    const transaction = Number(meta.readBigUInt64LE(152));
    if (transaction > newest) {
      newest = transaction;
      lastPage = Number(meta.readBigUInt64LE(144));
      roots = [meta.readBigUInt64LE(88), meta.readBigUInt64LE(136)];
    }
  }
  const needed = (lastPage + 1) * lmdbPageBytes;
  if (fileBytes >= needed) return;
  // Pages that a transaction allocated at the end and freed again are counted but never written: a sound file may be short by
  // what one transaction takes. The file is extended, so that no read goes beyond its end; a page that was cut off reads as
  // zeros then, which LMDB refuses when it meets it.
  const pages = BigInt(Math.floor(fileBytes / lmdbPageBytes));
  const lacksRoot = roots.some((root) => root !== NO_PAGE && root >= pages);
  if (lacksRoot || needed - fileBytes > lmdbShortBytesMax) {
    throw corrupt(path, `it was cut to ${fileBytes} bytes, its newest commit uses ${needed}`);
  }
  if (fstatSync(descriptor).size < needed) ftruncateSync(descriptor, needed);
}

function corrupt(path: string, what: string): FatalError {
  return new FatalError(
    ExitCode.backendCorrupt,
    `the database ${path} is damaged: ${what}; restore it from a snapshot`,
  );
}

/** A limit on address space (ulimit -v) below the map would fail inside the native open. */
function checkAddressSpace(path: string, mapBytes: number): void {
  let limits: string;
  try {
    limits = readFileSync('/proc/self/limits', 'latin1');
  } catch {
    return; // No such file outside of Linux, where no such limit is usual either.
  }
  const found = /^Max address space\s+(\d+)/m.exec(limits);
  if (found === null || Number(found[1]) > mapBytes * 1.25) return;
  throw new FatalError(
    ExitCode.backendWrite,
    `cannot open the database ${path}: it needs ${mapBytes} bytes of address space, the limit (ulimit -v) is ${found[1]}`,
  );
}
