// The values of the index tables: what they hold, byte by byte, and their readers and writers. It knows no table and no
// delta. Follows etcd's keyIndex (server/storage/mvcc/key_index.go) in meaning: the changes of a key, newest first, with a
// tombstone closing each generation; the numbers of a generation (create, version) are kept for the newest change only,
// since the row of any older one holds them.
//
// `live` and `dead`: table key (index-key.ts) → entry
//   | bytes        | what                                                                            |
//   |--------------|---------------------------------------------------------------------------------|
//   | 1            | flags: 1 long key follows, 2 lease, 4 older chunks in `hist`, 8 tombstone (dead) |
//   | varint, n    | the client's key, only with flag 1                                              |
//   | varint       | main revision of the newest change                                              |
//   | varint       | its sub revision                                                                |
//   | varint x 2   | main - create revision, version; not with flag 8                                |
//   | 8            | lease id, big endian, only with flag 2                                          |
//   | varint x 2   | main and sub of the newest change in `hist`, only with flag 4                   |
//   | the rest     | items of older changes, newest first                                            |
// An item: varint of (main of the next newer change - main) x 4, + 2 when a sub revision follows (else 0), + 1 for a
// tombstone; then varint sub with + 2.
//
// `hist`: revision of the chunk's newest change (main 8 bytes, sub 4, big endian) → chunk
//   | 1            | flags: 4 an older chunk follows                                                 |
//   | varint       | main of the oldest change in it (lets a reader pass it over)                    |
//   | varint x 2   | main and sub of the newest change of the next older chunk, only with flag 4     |
//   | varint       | main of the newest change in it                                                 |
//   | the rest     | items as above, the first with a difference of 0                                |
// A chunk that compaction has removed ends the list.
//
// `histlog`: main 8 bytes, kind 1, sub 4 (big endian) → what compaction to C may remove, so that nobody looks for it:
//   kind 0, main <= C: the chunk in `hist` all of whose changes are older than this revision; value: its key there
//   kind 1, main < C:  the deleted key whose tombstone is this revision; value: the client's key
//
// `leased`: lease id 8 bytes, table key → 00, or for a long key 01, varint length, key.
// `counts`: first table key of a block of `live` (the first block's is 00) → number of live keys, 4 bytes big endian.
// `keelson`, key `indexMerge`: position of the merge, 4 bytes (ffffffff: finished), its number, 4, newest main revision of
// its delta, 8, newest main revision of any merge that was begun, 8; big endian.
// `keelson`, key `indexMerged`: what merges that a crash may end have brought, for each: newest main revision of its delta, 8,
// length of the last key that it reached, 4, that key. Changes up to that revision of keys up to that key are in the tables.

import { ByteWriter } from '../base/byte-writer.ts';
import { assertSound } from '../base/fatal.ts';

export const EntryFlag = { long: 1, lease: 2, hist: 4, tombstone: 8 } as const;
export const HistlogKind = { chunk: 0, dead: 1 } as const;

const ITEM_TOMBSTONE = 1;
const ITEM_SUB = 2;
const ITEM_SCALE = 4;
/** Differences are scaled by 4 and must stay exact in a double. */
const MAIN_MAX = 2 ** 50;
/** A varint that reaches this is no number of ours. */
const NUMBER_SCALE_MAX = 2 ** 56;
const TWO_32 = 4294967296;

export const HIST_KEY_BYTES = 12;
export const HISTLOG_KEY_BYTES = 13;
export const MERGE_MARK_BYTES = 24;
export const MERGE_FINISHED = 0xffffffff;
export const mergeMarkKey: Buffer = Buffer.from('indexMerge');
export const mergedPartsKey: Buffer = Buffer.from('indexMerged');
export const MERGED_PART_HEAD_BYTES = 12;

/** Writes one entry or chunk after the other. */
export class EntryWriter extends ByteWriter {
  constructor() {
    super(4096);
  }

  uint32(value: number): void {
    this.reserve(4);
    this.length = this.bytes.writeUInt32BE(value, this.length);
  }

  /** What was written since the reset, until the next write. */
  view(): Buffer {
    return this.bytes.subarray(0, this.length);
  }
}

/** Reads varints from `buffer[at, end)`. */
export class ByteReader {
  buffer: Buffer = Buffer.alloc(0);
  at = 0;
  end = 0;

  varint(): number {
    const buffer = this.buffer;
    let byte = buffer[this.at++]!;
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    let scale = 128;
    while (byte >= 0x80) {
      assertSound(this.at < this.end && scale < NUMBER_SCALE_MAX, 'an entry of the key index is cut');
      byte = buffer[this.at++]!;
      value += (byte & 0x7f) * scale;
      scale *= 128;
    }
    return value;
  }
}

/** A list of changes being walked from the newest on: `main`, `sub` and `tombstone` are of the one that next() reached. */
export class ItemReader extends ByteReader {
  main = 0;
  sub = 0;
  tombstone = false;

  next(): boolean {
    if (this.at >= this.end) return false;
    const item = this.varint();
    const flags = item % ITEM_SCALE;
    this.main -= (item - flags) / ITEM_SCALE;
    this.sub = (flags & ITEM_SUB) === 0 ? 0 : this.varint();
    this.tombstone = (flags & ITEM_TOMBSTONE) !== 0;
    assertSound(this.main > 0, 'an entry of the key index is cut');
    return true;
  }

  /** Goes on to the newest change with main <= atRev. */
  seek(atRev: number): boolean {
    while (this.next()) if (this.main <= atRev) return true;
    return false;
  }
}

/** An entry of `live` or `dead`. After read(), next() walks the older changes in the entry. */
export class EntryReader extends ItemReader {
  newestMain = 0;
  newestSub = 0;
  dead = false;
  createMain = 0;
  version = 0;
  leaseHi = 0;
  leaseLo = 0;
  /** Newest change in `hist`, or main 0. */
  histMain = 0;
  histSub = 0;
  long = false;
  /** The client's key in `buffer`, when long. */
  keyStart = 0;
  keyEnd = 0;

  /** The newest change alone: newestMain and newestSub. */
  readNewest(value: Buffer, start: number, end: number): number {
    this.buffer = value;
    this.end = end;
    assertSound(end - start >= 3, 'an entry of the key index is cut');
    const flags = value[start]!;
    this.at = start + 1;
    this.long = (flags & EntryFlag.long) !== 0;
    if (this.long) this.readKey();
    this.newestMain = this.varint();
    this.newestSub = this.varint();
    return flags;
  }

  /** The entry is value[start, end). */
  read(value: Buffer, start = 0, end: number = value.length): void {
    const flags = this.readNewest(value, start, end);
    this.main = this.newestMain;
    this.sub = this.newestSub;
    this.dead = (flags & EntryFlag.tombstone) !== 0;
    this.tombstone = this.dead;
    this.createMain = this.dead ? 0 : this.main - this.varint();
    this.version = this.dead ? 0 : this.varint();
    this.leaseHi = 0;
    this.leaseLo = 0;
    if ((flags & EntryFlag.lease) !== 0) this.readLease();
    this.histMain = 0;
    this.histSub = 0;
    if ((flags & EntryFlag.hist) !== 0) {
      this.histMain = this.varint();
      this.histSub = this.varint();
    }
    const isWhole = this.at <= this.end && this.main > 0 && this.createMain >= 0 && this.histSub < TWO_32;
    assertSound(isWhole, 'an entry of the key index is cut');
  }

  private readKey(): void {
    const length = this.varint();
    this.keyStart = this.at;
    this.keyEnd = this.at + length;
    this.at = this.keyEnd;
    assertSound(this.at < this.end, 'an entry of the key index is cut');
  }

  private readLease(): void {
    assertSound(this.at + 8 <= this.end, 'an entry of the key index is cut');
    this.leaseHi = this.buffer.readUInt32BE(this.at);
    this.leaseLo = this.buffer.readUInt32BE(this.at + 4);
    this.at += 8;
  }
}

/** A value of `hist`. After read(), next() walks its changes. */
export class ChunkReader extends ItemReader {
  oldestMain = 0;
  olderMain = 0;
  olderSub = 0;

  /** The chunk is value[start, end). */
  read(value: Buffer, start: number, end: number): void {
    this.buffer = value;
    this.end = end;
    this.at = start + 1;
    this.oldestMain = this.varint();
    const linked = (value[start]! & EntryFlag.hist) !== 0;
    this.olderMain = linked ? this.varint() : 0;
    this.olderSub = linked ? this.varint() : 0;
    this.main = this.varint();
    // Its items, and the chunks behind it, are older and older: so a walk along them ends.
    const isWhole = this.at <= end && this.oldestMain <= this.main && this.olderMain <= this.oldestMain;
    assertSound(isWhole && this.olderSub < TWO_32, 'a chunk of the key index is cut');
  }
}

/** The changes of one key, newest first, while its entry is rebuilt. */
export class ChangeList {
  length = 0;
  mains: Float64Array = new Float64Array(1024);
  subs: Uint32Array = new Uint32Array(1024);
  tombstones: Uint8Array = new Uint8Array(1024);

  push(main: number, sub: number, tombstone: boolean): void {
    const at = this.length++;
    if (at === this.mains.length) this.grow();
    this.mains[at] = main;
    this.subs[at] = sub;
    this.tombstones[at] = tombstone ? 1 : 0;
  }

  private grow(): void {
    const capacity = 2 * this.mains.length;
    const mains = new Float64Array(capacity);
    mains.set(this.mains);
    this.mains = mains;
    const subs = new Uint32Array(capacity);
    subs.set(this.subs);
    this.subs = subs;
    const tombstones = new Uint8Array(capacity);
    tombstones.set(this.tombstones);
    this.tombstones = tombstones;
  }

  /** Items of [from, to), the first relative to `newerMain`. */
  writeItems(out: EntryWriter, from: number, to: number, newerMain: number): void {
    let newer = newerMain;
    for (let i = from; i < to; i++) {
      const main = this.mains[i]!;
      const sub = this.subs[i]!;
      // Some of them were read from the tables.
      assertSound(main <= newer && newer < MAIN_MAX, 'changes of a key out of order');
      const flags = this.tombstones[i]! * ITEM_TOMBSTONE + (sub === 0 ? 0 : ITEM_SUB);
      out.varint((newer - main) * ITEM_SCALE + flags);
      if (sub !== 0) out.varint(sub);
      newer = main;
    }
  }
}

export function histKey(out: Buffer, main: number, sub: number): Buffer {
  writeUint64(out, 0, main);
  out.writeUInt32BE(sub, 8);
  return out;
}

export function histlogKey(out: Buffer, main: number, kind: number, sub: number): Buffer {
  writeUint64(out, 0, main);
  out[8] = kind;
  out.writeUInt32BE(sub, 9);
  return out;
}

export function writeUint64(out: Buffer, at: number, value: number): void {
  out.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  out.writeUInt32BE(value % 2 ** 32, at + 4);
}

export function readUint64(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at) * 2 ** 32 + buffer.readUInt32BE(at + 4);
}
