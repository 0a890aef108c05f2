// The table `garbage`: which rows of `key` a compaction may delete, written when they become superseded, so that compaction
// costs what it deletes instead of a scan of the keyspace. Not the index's garbage (index-*.ts keep their own).
//
// A block holds up to 160 rows in the order in which they became garbage:
//
//   key     0   8 BE  main of the change that made the first row garbage      8   4 BE  its sub
//   value, for each row 24 bytes, big-endian:
//           0   8     main of the change that made the row garbage
//           8   8     main of the row                                        16   4     sub of the row
//          20   4     0: the row is superseded: deleted by a compaction at >= that main
//                     1: the row is that change itself, a tombstone: deleted by a compaction at > that main
//
// So a tombstone exactly at the compaction revision stays until the next compaction, as in etcd (issue 19179).
// A block of which some rows remain keeps its key, a lower bound of what is in it.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import type { WriteTable } from '../io/table.ts';
import { backendLimits } from '../storage-limits.ts';

export const GARBAGE_ENTRY_BYTES = 24;
const KEY_BYTES = 12;
const TWO_32 = 4294967296;

function writeMain(out: Buffer, main: number, offset: number): void {
  out.writeUInt32BE(Math.floor(main / TWO_32), offset);
  out.writeUInt32BE(main % TWO_32, offset + 4);
}

function readMain(bytes: Buffer, offset: number): number {
  return bytes.readUInt32BE(offset) * TWO_32 + bytes.readUInt32BE(offset + 4);
}

/** Collects the garbage of a transaction into blocks. */
export class GarbageWriter {
  private readonly key = Buffer.alloc(KEY_BYTES);
  private readonly block: Buffer;
  private used = 0;

  constructor(entriesMax: number = backendLimits.garbageBlockEntries) {
    // Both rows that one tombstone makes garbage may have to share a block: else two blocks would have the same key.
    assert(entriesMax >= 2, 'garbage block of less than two entries');
    this.block = Buffer.alloc(entriesMax * GARBAGE_ENTRY_BYTES);
  }

  add(table: WriteTable, atMain: number, atSub: number, rowMain: number, rowSub: number, tombstone: boolean): void {
    if (this.used === this.block.length) this.flush(table);
    if (this.used === 0) {
      writeMain(this.key, atMain, 0);
      this.key.writeUInt32BE(atSub, 8);
    }
    const at = this.used;
    writeMain(this.block, atMain, at);
    writeMain(this.block, rowMain, at + 8);
    this.block.writeUInt32BE(rowSub, at + 16);
    this.block.writeUInt32BE(tombstone ? 1 : 0, at + 20);
    this.used += GARBAGE_ENTRY_BYTES;
  }

  flush(table: WriteTable): void {
    if (this.used > 0) table.put(this.key, this.block.subarray(0, this.used));
    this.used = 0;
  }

  /** Forgets what an aborted transaction added. */
  reset(): void {
    this.used = 0;
  }
}

export function garbageKeyMain(key: Buffer): number {
  assertSound(key.length === KEY_BYTES, 'a block of garbage without a revision');
  return readMain(key, 0);
}

/** One row of a block's value at `offset`, as a reusable out-object. */
export class GarbageEntry {
  atMain = 0;
  main = 0;
  sub = 0;
  tombstone = false;

  read(value: Buffer, offset: number): void {
    assertSound(offset + GARBAGE_ENTRY_BYTES <= value.length, 'a block of garbage is cut');
    this.atMain = readMain(value, offset);
    this.main = readMain(value, offset + 8);
    this.sub = value.readUInt32BE(offset + 16);
    this.tombstone = value.readUInt32BE(offset + 20) === 1;
    const isRow = this.main > 0 && this.main <= this.atMain && Number.isSafeInteger(this.atMain);
    assertSound(isRow, 'a block of garbage names no row');
  }

  deletedBy(compactRevision: number): boolean {
    return this.tombstone ? this.atMain < compactRevision : this.atMain <= compactRevision;
  }
}
