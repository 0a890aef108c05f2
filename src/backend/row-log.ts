// The memtable: what was applied and is not yet in the tables, as records in slabs of shared memory that the core thread
// writes and the flusher thread reads in the same order. Not a write-ahead log: a crash loses it, and the WAL replays it.
//
// A slab's records, words little-endian, each record padded to 8 bytes:
//
//   offset  bytes
//        0      4  kind: 1 row, 2 row of a tombstone, 3 bucket put, 4 bucket delete, 5 end of an apply, 6 next slab
//        4      4  bytes of the value (row: of the KeyValue); of kind 6: the next slab's number
//   row     8      8  main          16  4  sub         20  8  superseded main, 0: none    28  4  superseded sub
//          32         KeyValue
//   bucket  8      4  bytes of the key               12  4  number of the bucket
//          16         key, value
//   end     8      8  consistent index                16  8  term
//
// Example, one apply that puts key a and deletes key b at revision 7, then moves the index to 12:
//   [1 |40| 7.0 over 5.0 | KeyValue] [2 |3| 7.1 over 6.0 | KeyValue] [5 | index 12, term 2] ...
//
// A position counts the bytes of records appended since the start, without kind 6, so that it orders everything.
// Ordinals number the rows since the start.
//
// Memory per row beside its bytes: 16 bytes of location in chunks of typed arrays; no object.

import { assert } from '../base/assert.ts';
import { backendLimits } from '../storage-limits.ts';

export const RecordKind = { row: 1, tombstone: 2, bucketPut: 3, bucketDelete: 4, endApply: 5, nextSlab: 6 } as const;

const ROW_HEADER_BYTES = 32;
const BUCKET_HEADER_BYTES = 16;
const END_BYTES = 24;
const NEXT_SLAB_BYTES = 8;
const TWO_32 = 4294967296;
const CHUNK_ROWS = 8192;

/** A slab's memory as bytes and as words. */
export class Slab {
  readonly id: number;
  readonly memory: SharedArrayBuffer;
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  /** Position after the last record in it; known when the next slab has begun. */
  endPosition = 0;

  constructor(id: number, memory: SharedArrayBuffer) {
    this.id = id;
    this.memory = memory;
    this.bytes = Buffer.from(memory);
    this.words = new Uint32Array(memory);
  }
}

/** Where the rows of CHUNK_ROWS ordinals are. */
interface Chunk {
  readonly mains: Float64Array;
  readonly slabs: Uint32Array;
  readonly offsets: Uint32Array;
}

export interface RowRef {
  buffer: Buffer;
  start: number;
  end: number;
}

export type RowVisitor = (
  main: number,
  sub: number,
  tombstone: boolean,
  buffer: Buffer,
  start: number,
  end: number,
) => boolean;

/** The flusher must hear of slabs before their records, and may forget dropped ones. */
export interface SlabListener {
  slabAdded(id: number, memory: SharedArrayBuffer): void;
  slabDropped(id: number): void;
}

function padded(byteCount: number): number {
  return (byteCount + 7) & ~7;
}

/** The core's side: appends, finds rows, drops what the tables show. */
export class RowLog {
  rowBuffer: Buffer = Buffer.alloc(0);
  rowOffset = 0;
  /** Position after the last record. */
  position = 0;
  /** Rows appended and rows dropped since the start: ordinals below rowsDropped are in the tables. */
  rowsAppended = 0;
  rowsDropped = 0;
  private droppedPosition = 0;
  private readonly slabs: (Slab | undefined)[] = [];
  /** In the order of their records; the last one is written to. */
  private live: Slab[] = [];
  private free: Slab[] = [];
  private current: Slab;
  private offset = 0;
  private chunks: Chunk[] = [];
  private freeChunks: Chunk[] = [];
  private chunksDropped = 0;
  private readonly listener: SlabListener;
  private readonly slabBytes: number;

  constructor(listener: SlabListener, slabBytes: number = backendLimits.slabBytes) {
    this.listener = listener;
    this.slabBytes = slabBytes;
    this.current = this.takeSlab(0);
  }

  /** Bytes of records that the tables do not show yet. */
  get backlogBytes(): number {
    return this.position - this.droppedPosition;
  }

  get backlogRows(): number {
    return this.rowsAppended - this.rowsDropped;
  }

  get firstSlab(): Slab {
    return this.live[0]!;
  }

  /** Hot (0.1 us): reserves a row; the caller writes its KeyValue to rowBuffer at rowOffset at once. */
  appendRow(
    main: number,
    sub: number,
    tombstone: boolean,
    byteCount: number,
    supersededMain: number,
    supersededSub: number,
  ): number {
    const record = padded(ROW_HEADER_BYTES + byteCount);
    const at = this.reserve(record);
    const slab = this.current;
    const words = slab.words;
    const word = at >>> 2;
    words[word] = tombstone ? RecordKind.tombstone : RecordKind.row;
    words[word + 1] = byteCount;
    words[word + 2] = main % TWO_32;
    words[word + 3] = main / TWO_32;
    words[word + 4] = sub;
    words[word + 5] = supersededMain % TWO_32;
    words[word + 6] = supersededMain / TWO_32;
    words[word + 7] = supersededSub;
    this.rowBuffer = slab.bytes;
    this.rowOffset = at + ROW_HEADER_BYTES;
    const ordinal = this.rowsAppended++;
    const index = ordinal % CHUNK_ROWS;
    if (index === 0 || this.chunks.length === 0) this.addChunk();
    const chunk = this.chunks[this.chunks.length - 1]!;
    chunk.mains[index] = main;
    chunk.slabs[index] = slab.id;
    chunk.offsets[index] = at;
    return ordinal;
  }

  appendBucketPut(bucket: number, key: Buffer, value: Buffer): void {
    this.appendBucket(RecordKind.bucketPut, bucket, key, value.length);
    value.copy(this.current.bytes, this.rowOffset + key.length);
  }

  appendBucketDelete(bucket: number, key: Buffer): void {
    this.appendBucket(RecordKind.bucketDelete, bucket, key, 0);
  }

  private appendBucket(kind: number, bucket: number, key: Buffer, valueBytes: number): void {
    const at = this.reserve(padded(BUCKET_HEADER_BYTES + key.length + valueBytes));
    const words = this.current.words;
    const word = at >>> 2;
    words[word] = kind;
    words[word + 1] = valueBytes;
    words[word + 2] = key.length;
    words[word + 3] = bucket;
    this.rowOffset = at + BUCKET_HEADER_BYTES;
    key.copy(this.current.bytes, this.rowOffset);
  }

  endApply(index: number, term: number): void {
    const at = this.reserve(END_BYTES);
    const words = this.current.words;
    const word = at >>> 2;
    words[word] = RecordKind.endApply;
    words[word + 1] = 0;
    words[word + 2] = index % TWO_32;
    words[word + 3] = index / TWO_32;
    words[word + 4] = term % TWO_32;
    words[word + 5] = term / TWO_32;
  }

  private reserve(byteCount: number): number {
    if (this.offset + byteCount + NEXT_SLAB_BYTES > this.current.bytes.length) this.nextSlab(byteCount);
    const at = this.offset;
    this.offset += byteCount;
    this.position += byteCount;
    return at;
  }

  private nextSlab(byteCount: number): void {
    const full = this.current;
    full.endPosition = this.position;
    const next = this.takeSlab(byteCount);
    full.words[this.offset >>> 2] = RecordKind.nextSlab;
    full.words[(this.offset >>> 2) + 1] = next.id;
    this.current = next;
    this.offset = 0;
  }

  private takeSlab(byteCount: number): Slab {
    const needed = byteCount + NEXT_SLAB_BYTES;
    let slab = needed <= this.slabBytes ? this.free.pop() : undefined;
    if (slab === undefined) {
      let id = this.slabs.indexOf(undefined);
      if (id < 0) id = this.slabs.length;
      slab = new Slab(id, new SharedArrayBuffer(Math.max(this.slabBytes, padded(needed))));
      this.slabs[id] = slab;
      this.listener.slabAdded(id, slab.memory);
    }
    this.live.push(slab);
    return slab;
  }

  private addChunk(): void {
    this.chunks.push(
      this.freeChunks.pop() ?? {
        mains: new Float64Array(CHUNK_ROWS),
        slabs: new Uint32Array(CHUNK_ROWS),
        offsets: new Uint32Array(CHUNK_ROWS),
      },
    );
  }

  /** The tables show all records before `position`, which hold the rows before `rowCount`. */
  drop(position: number, rowCount: number): void {
    assert(position >= this.droppedPosition && position <= this.position, 'row log dropped beyond its end');
    assert(rowCount >= this.rowsDropped && rowCount <= this.rowsAppended, 'row log drops rows that it does not have');
    this.droppedPosition = position;
    this.rowsDropped = rowCount;
    // Strictly less: at the very end of a slab the flusher has not followed its mark to the next one yet.
    while (this.live.length > 1 && this.live[0]!.endPosition < position) this.releaseSlab(this.live.shift()!);
    while (this.chunks.length > 1 && (this.chunksDropped + 1) * CHUNK_ROWS <= rowCount) {
      const chunk = this.chunks.shift()!;
      if (this.freeChunks.length < backendLimits.slabsFreeMax) this.freeChunks.push(chunk);
      this.chunksDropped++;
    }
  }

  private releaseSlab(slab: Slab): void {
    if (slab.bytes.length === this.slabBytes && this.free.length < backendLimits.slabsFreeMax) {
      this.free.push(slab);
      return;
    }
    this.slabs[slab.id] = undefined;
    this.listener.slabDropped(slab.id);
  }

  /** The row of that ordinal and revision; false when it is in the tables. Hot. */
  read(main: number, sub: number, ordinal: number, out: RowRef): boolean {
    if (ordinal < this.rowsDropped || ordinal >= this.rowsAppended) return false;
    return this.readAt(ordinal, main, sub, out);
  }

  private readAt(row: number, main: number, sub: number, out: RowRef): boolean {
    const chunk = this.chunks[Math.floor(row / CHUNK_ROWS) - this.chunksDropped]!;
    const index = row % CHUNK_ROWS;
    if (chunk.mains[index] !== main) return false;
    const slab = this.slabs[chunk.slabs[index]!]!;
    const at = chunk.offsets[index]!;
    if (slab.words[(at >>> 2) + 4] !== sub) return false;
    out.buffer = slab.bytes;
    out.start = at + ROW_HEADER_BYTES;
    out.end = out.start + slab.words[(at >>> 2) + 1]!;
    return true;
  }

  /** A row by revision alone, by binary search. */
  find(main: number, sub: number, out: RowRef): boolean {
    for (let row = this.lowerBound(main); row < this.rowsAppended && this.mainOf(row) === main; row++) {
      if (this.readAt(row, main, sub, out)) return true;
    }
    return false;
  }

  /** Rows with main in [fromMain, toMain], in revision order. Returns false when `visit` did. */
  scan(fromMain: number, toMain: number, visit: RowVisitor): boolean {
    for (let row = this.lowerBound(fromMain); row < this.rowsAppended; row++) {
      const chunk = this.chunks[Math.floor(row / CHUNK_ROWS) - this.chunksDropped]!;
      const index = row % CHUNK_ROWS;
      const main = chunk.mains[index]!;
      if (main > toMain) return true;
      const slab = this.slabs[chunk.slabs[index]!]!;
      const word = chunk.offsets[index]! >>> 2;
      const start = chunk.offsets[index]! + ROW_HEADER_BYTES;
      const tombstone = slab.words[word] === RecordKind.tombstone;
      if (!visit(main, slab.words[word + 4]!, tombstone, slab.bytes, start, start + slab.words[word + 1]!))
        return false;
    }
    return true;
  }

  /** The main of the first row kept here, or Infinity. */
  firstMain(): number {
    return this.rowsDropped < this.rowsAppended ? this.mainOf(this.rowsDropped) : Infinity;
  }

  private mainOf(row: number): number {
    return this.chunks[Math.floor(row / CHUNK_ROWS) - this.chunksDropped]!.mains[row % CHUNK_ROWS]!;
  }

  private lowerBound(main: number): number {
    let low = this.rowsDropped;
    let high = this.rowsAppended;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.mainOf(middle) < main) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The flusher's side: walks the records in order. The current one's fields are in the public members. */
export class RowLogReader {
  position = 0;
  kind = 0;
  bytes: Buffer = Buffer.alloc(0);
  main = 0;
  sub = 0;
  supersededMain = 0;
  supersededSub = 0;
  bucket = 0;
  keyStart = 0;
  keyEnd = 0;
  valueStart = 0;
  valueEnd = 0;
  index = 0;
  term = 0;
  private readonly slabs: (Slab | undefined)[] = [];
  private current: Slab | undefined;
  private offset = 0;

  addSlab(id: number, memory: SharedArrayBuffer): void {
    const slab = new Slab(id, memory);
    this.slabs[id] = slab;
    this.current ??= slab;
  }

  dropSlab(id: number): void {
    this.slabs[id] = undefined;
  }

  /** Moves to the next record; the caller knows from the position that there is one. Hot. */
  next(): void {
    let slab = this.current;
    assert(slab !== undefined, 'row log read before its first slab');
    let word = this.offset >>> 2;
    if (slab.words[word] === RecordKind.nextSlab) {
      slab = this.slabs[slab.words[word + 1]!];
      assert(slab !== undefined, 'row log goes on in an unknown slab');
      this.current = slab;
      this.offset = 0;
      word = 0;
    }
    const words = slab.words;
    const at = this.offset;
    const valueBytes = words[word + 1]!;
    this.kind = words[word]!;
    this.bytes = slab.bytes;
    let record: number;
    switch (this.kind) {
      case RecordKind.row:
      case RecordKind.tombstone:
        this.main = words[word + 2]! + words[word + 3]! * TWO_32;
        this.sub = words[word + 4]!;
        this.supersededMain = words[word + 5]! + words[word + 6]! * TWO_32;
        this.supersededSub = words[word + 7]!;
        this.valueStart = at + ROW_HEADER_BYTES;
        record = ROW_HEADER_BYTES + valueBytes;
        break;
      case RecordKind.bucketPut:
      case RecordKind.bucketDelete:
        this.bucket = words[word + 3]!;
        this.keyStart = at + BUCKET_HEADER_BYTES;
        this.keyEnd = this.keyStart + words[word + 2]!;
        this.valueStart = this.keyEnd;
        record = BUCKET_HEADER_BYTES + words[word + 2]! + valueBytes;
        break;
      default:
        assert(this.kind === RecordKind.endApply, 'row log record of an unknown kind');
        this.index = words[word + 2]! + words[word + 3]! * TWO_32;
        this.term = words[word + 4]! + words[word + 5]! * TWO_32;
        this.valueStart = at;
        record = END_BYTES;
    }
    this.valueEnd = this.valueStart + valueBytes;
    this.offset = at + padded(record);
    this.position += padded(record);
  }
}
