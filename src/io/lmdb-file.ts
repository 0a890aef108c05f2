// The checks of an LMDB data file before it is opened, since the lmdb package (3.5.6) ends the process with a segmentation
// fault when its native open fails: it frees the environment twice. Also the map of a file that was cut short raises SIGBUS
// at the first read beyond its end. So everything that can be seen from outside is looked at here and becomes a FatalError; of the
// trees, the two small ones that LMDB cannot do without: the table of tables and the lists of free pages. Pages of tables are
// checked when LMDB first gets them to write (lmdb-guard.ts), and where they are read in place (lmdb-page.ts).
//
// A meta page of data format 2 (LMDB's two newest commits; pages 0 and 1), little-endian:
//
//   offset  bytes
//        0      8  page number, 0 or 1
//       18      2  page flags: 8, a meta page
//       24      4  magic 0xbeefc0de
//       28      4  data format: 2
//       32      8  address of the map: 0, any
//       40      8  bytes of the map
//       48      4  page size in bytes
//       52      2  flags: keys of free pages are numbers
//       88      8  root page of the table of free pages, all ones for none
//      100      2  flags: 0
//      136      8  root page of the table of tables, all ones for none
//      144      8  last page that this commit uses
//      152      8  transaction number, odd on page 1; the next commit writes the other page

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
import { lmdbOpenFreeBytesMin, lmdbPageBytes, lmdbShortBytesMax } from '../storage-limits.ts';
import { checkTree, FreePages, readRecord, readRecords } from './lmdb-check.ts';
import type { PageMap, PageWindow } from './lmdb-map.ts';

const MAGIC = 0xbeefc0de;
const DATA_FORMAT = 2;
const META_FLAG = 8;
const META_BYTES = 160;
const FREE_FLAGS = 0x4008;
/** Records of the two tables in a meta page. */
const FREE_RECORD = 48;
const MAIN_RECORD = 96;
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
    if (fileBytes > 0) checkContent(path, descriptor, fileBytes, mapBytes);
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

function checkContent(path: string, descriptor: number, fileBytes: number, mapBytes: number): void {
  const metas = [readMeta(path, descriptor, 0, mapBytes), readMeta(path, descriptor, 1, mapBytes)] as const;
  const transactions = metas.map((meta) => meta.readBigUInt64LE(152)) as [bigint, bigint];
  const [even, odd] = transactions;
  const isNew = even === 0n && odd === 0n;
  if (!isNew && even - odd !== 1n && odd - even !== 1n) throw corrupt(path, `transactions ${even} and ${odd}`);
  const meta = metas[even > odd ? 0 : 1];
  const lastPage = Number(meta.readBigUInt64LE(144));
  checkLength(path, descriptor, fileBytes, meta, lastPage);
  const map = new FilePages(path, descriptor, lastPage);
  const newest = meta.readBigUInt64LE(152);
  const view = new DataView(meta.buffer, meta.byteOffset, meta.length);
  checkTree(map, 'of tables', 'tables', readRecord(map, 'of tables', view, MAIN_RECORD), newest, (leaf) =>
    readRecords(map, leaf, new Map()),
  );
  const free = new FreePages(map, lastPage);
  const freeRecord = readRecord(map, 'of free pages', view, FREE_RECORD);
  checkTree(map, 'of free pages', 'free', freeRecord, newest, (leaf) => free.addLeaf(leaf));
}

function readMeta(path: string, descriptor: number, page: number, mapBytes: number): Buffer {
  const meta = Buffer.alloc(META_BYTES);
  const read = readSync(descriptor, meta, 0, META_BYTES, page * lmdbPageBytes);
  if (read < META_BYTES || meta.readUInt32LE(24) !== MAGIC || (meta.readUInt16LE(18) & META_FLAG) === 0) {
    throw corrupt(path, `no meta page at offset ${page * lmdbPageBytes}`);
  }
  if (meta.readUInt32LE(28) !== DATA_FORMAT) throw corrupt(path, `data format ${meta.readUInt32LE(28)}, not 2`);
  if (meta.readUInt32LE(48) !== lmdbPageBytes) throw corrupt(path, `page size ${meta.readUInt32LE(48)}`);
  const transaction = meta.readBigUInt64LE(152);
  const isSound =
    meta.readBigUInt64LE(0) === BigInt(page) &&
    meta.readBigUInt64LE(32) === 0n &&
    meta.readBigUInt64LE(40) <= BigInt(mapBytes) &&
    meta.readUInt16LE(52) === FREE_FLAGS &&
    meta.readUInt16LE(100) === 0 &&
    (transaction === 0n || Number(transaction & 1n) === page);
  if (!isSound) throw corrupt(path, `a meta page at offset ${page * lmdbPageBytes} that cannot be`);
  return meta;
}

function checkLength(path: string, descriptor: number, fileBytes: number, meta: Buffer, lastPage: number): void {
  const needed = (lastPage + 1) * lmdbPageBytes;
  if (fileBytes >= needed) return;
  // Pages that a transaction allocated at the end and freed again are counted but never written: a sound file may be short by
  // what one transaction takes. The file is extended, so that no read goes beyond its end; a page that was cut off reads as
  // zeros then, which LMDB refuses when it meets it.
  const pages = BigInt(Math.floor(fileBytes / lmdbPageBytes));
  const roots = [meta.readBigUInt64LE(88), meta.readBigUInt64LE(136)];
  const lacksRoot = roots.some((root) => root !== NO_PAGE && root >= pages);
  if (lacksRoot || needed - fileBytes > lmdbShortBytesMax) {
    throw corrupt(path, `it was cut to ${fileBytes} bytes, its newest commit uses ${needed}`);
  }
  if (fstatSync(descriptor).size < needed) ftruncateSync(descriptor, needed);
}

/** The file's pages by reads, one at a time. */
class FilePages implements PageMap {
  readonly path: string;
  readonly windowShift = 0;
  private readonly descriptor: number;
  private readonly lastPage: number;

  constructor(path: string, descriptor: number, lastPage: number) {
    this.path = path;
    this.descriptor = descriptor;
    this.lastPage = lastPage;
  }

  has(page: number): boolean {
    return page <= this.lastPage;
  }

  window(page: number): PageWindow {
    const buffer = Buffer.alloc(lmdbPageBytes);
    readSync(this.descriptor, buffer, 0, lmdbPageBytes, page * lmdbPageBytes);
    return { buffer, view: new DataView(buffer.buffer, buffer.byteOffset, lmdbPageBytes) };
  }
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
