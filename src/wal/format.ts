// The bytes of the write-ahead log: keelson's own format, not etcd's. Encoding and decoding only; files, rotation and repair
// are in wal.ts and replay.ts. All integers are little-endian; 64-bit ones are two uint32, low word first.
//
// A log is a directory of segments `<sequence>-<first index>.wal`, both 16 hex digits. The first index is that of the first
// entry that can be new in the segment (entries that overwrite a conflicting tail may be lower). Beside them: `lock`,
// `spare.wal` (the next segment's file, allocated), `spare.tmp` and `next.tmp` (being made; deleted at start).
//
// Segment: a header of 512 bytes, records from 512 on, each at a multiple of 8, then zeros or, in a recycled file, whatever
// was there. Records of another life of the file never pass for this one's: every CRC is seeded with the header's, which
// covers sequence, salt and the chain before it. No record spans segments.
//
//   segment header (512 bytes, written and synced before the file gets its name)
//     0  magic 89 4B 57 41 4C 0D 0A 1A ("\x89KWAL\r\n\x1a")
//     8  version, 1
//    12  CRC-32 of bytes 16..512: the segment's seed
//    16  sequence (64)
//    24  first index (64)
//    32  cluster id (64)
//    40  member id (64)
//    48  header CRC of the previous segment's last record, 0 for the first segment ever
//    52  salt: random, so that no client can write a value that holds a valid record
//    56  flags: 1 recycled file (its tail may hold stale bytes), 2 a snapshot marker is present, 4 the marker resets the log
//    60  0
//    64  hard state at the start: term (64), vote (64), commit (64)
//    88  snapshot marker at the start: index (64), term (64)
//   104  term of the entry before the first index (64)
//   112  zeros
//
//   record header (40 bytes); one record holds everything that one sync makes durable
//     0  magic 89 4B 57 52 ("\x89KWR")
//     4  header CRC: CRC-32 of bytes 8..40, seeded
//     8  payload CRC: CRC-32 of the payload and its padding, seeded
//    12  header CRC of the record before it in this segment; of the first one: the segment's seed
//    16  payload length, without padding to a multiple of 8
//    20  sequence of the segment, low word
//    24  number of the record in the segment, from 0
//    28  position of this header in the file
//    32  flags: 1 the segment ends here, the next one exists
//    36  0
//   payload: sections, in the order in which they were appended
//     hard state       0 kind 1    4 term (64)    12 vote (64)   20 commit (64)                       28 bytes
//     snapshot marker  0 kind 2    4 flags: 1 resets the log     8 index (64)   16 term (64)          24 bytes
//     run of entries   0 kind 3    4 count        8 first index (64)  16 term (64)                    24 bytes
//                      then for each entry: data length * 4 + type (u32), data                       4 + n bytes
//     A run is of consecutive indexes and one term. An entry whose index is not above the last one overwrites: it and
//     what follows it in the log go before it comes in.
//
// One record is in flight at a time, so a record's header after a damaged place proves that the place had been synced: that
// is damage, and without such a header it is a torn tail, or one flipped bit (replay.ts). It is assumed, as SQLite does by default, that a write
// that fails leaves the bytes of its sector outside its range as they were ("powersafe overwrite").

import zlib from 'node:zlib';
import { assert } from '../base/assert.ts';
import { walEntryBytesMax, walRecordBytesMax } from '../storage-limits.ts';

export const segmentHeaderBytes = 512;
export const recordHeaderBytes = 40;
export const recordAlignment = 8;
export const walVersion = 1;
export const segmentMagic: Buffer = Buffer.from('894b57414c0d0a1a', 'hex');
export const recordMagic: Buffer = Buffer.from('894b5752', 'hex');
const recordMagicWord = recordMagic.readUInt32LE(0);

/** Types of entries, as in etcd's raftpb. */
export type WalEntryType = 0 | 1 | 2;

/** An entry of raft: 0 normal, 1 membership change, 2 membership change V2. */
export interface WalEntry {
  readonly term: number;
  readonly index: number;
  readonly type: WalEntryType;
  readonly data: Buffer;
}

export interface WalHardState {
  readonly term: number;
  /** Member that got the vote of `term`, 0 for none. */
  readonly vote: bigint;
  readonly commit: number;
}

/** Everything up to `index` is in a snapshot. */
export interface WalSnapshotMarker {
  readonly index: number;
  readonly term: number;
  /** The snapshot came from a leader and replaces the log: no entry from before the marker counts any more. */
  readonly reset: boolean;
}

export interface WalMetadata {
  readonly clusterId: bigint;
  readonly memberId: bigint;
}

export const emptyHardState: WalHardState = { term: 0, vote: 0n, commit: 0 };

export interface SegmentHeader {
  readonly sequence: number;
  readonly firstIndex: number;
  readonly metadata: WalMetadata;
  readonly previousCrc: number;
  readonly salt: number;
  readonly recycled: boolean;
  readonly hardState: WalHardState;
  readonly marker: WalSnapshotMarker | null;
  /** Term of the entry at firstIndex - 1. */
  readonly previousTerm: number;
}

const SegmentFlag = { recycled: 1, marker: 2, reset: 4 } as const;
export const RecordFlag = { last: 1 } as const;
const SectionKind = { hardState: 1, marker: 2, run: 3 } as const;
export const hardStateBytes = 28;
export const markerBytes = 24;
export const runBytes = 24;
export const entryHeaderBytes = 4;

// --- names ---

export const segmentNamePattern: RegExp = /^([0-9a-f]{16})-([0-9a-f]{16})\.wal$/;

export function segmentName(sequence: number, firstIndex: number): string {
  return `${sequence.toString(16).padStart(16, '0')}-${firstIndex.toString(16).padStart(16, '0')}.wal`;
}

// --- integers ---

const twoTo32 = 0x100000000;

function write64(buffer: Buffer, value: number, at: number): void {
  buffer.writeUInt32LE(value >>> 0, at);
  buffer.writeUInt32LE(Math.floor(value / twoTo32), at + 4);
}

/** NaN beyond 2^53, which every comparison refuses. */
function read64(buffer: Buffer, at: number): number {
  const value = buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4) * twoTo32;
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

export function alignRecord(bytes: number): number {
  return Math.ceil(bytes / recordAlignment) * recordAlignment;
}

// --- segment header ---

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const buffer = Buffer.alloc(segmentHeaderBytes);
  segmentMagic.copy(buffer, 0);
  buffer.writeUInt32LE(walVersion, 8);
  write64(buffer, header.sequence, 16);
  write64(buffer, header.firstIndex, 24);
  buffer.writeBigUInt64LE(header.metadata.clusterId, 32);
  buffer.writeBigUInt64LE(header.metadata.memberId, 40);
  buffer.writeUInt32LE(header.previousCrc, 48);
  buffer.writeUInt32LE(header.salt, 52);
  let flags = header.recycled ? SegmentFlag.recycled : 0;
  write64(buffer, header.hardState.term, 64);
  buffer.writeBigUInt64LE(header.hardState.vote, 72);
  write64(buffer, header.hardState.commit, 80);
  if (header.marker !== null) {
    flags |= SegmentFlag.marker | (header.marker.reset ? SegmentFlag.reset : 0);
    write64(buffer, header.marker.index, 88);
    write64(buffer, header.marker.term, 96);
  }
  buffer.writeUInt32LE(flags, 56);
  write64(buffer, header.previousTerm, 104);
  buffer.writeUInt32LE(zlib.crc32(buffer.subarray(16)), 12);
  return buffer;
}

/** The CRC that seeds every record of the segment. */
export function segmentSeed(header: Buffer): number {
  return header.readUInt32LE(12);
}

/** The header, or what is wrong with it. */
export function decodeSegmentHeader(buffer: Buffer): SegmentHeader | string {
  if (buffer.length < segmentHeaderBytes) return 'the file is shorter than its header';
  if (!buffer.subarray(0, 8).equals(segmentMagic)) return 'it does not begin with the magic of a keelson WAL segment';
  const version = buffer.readUInt32LE(8);
  if (version !== walVersion) return `its format version is ${version}, this program knows ${walVersion}`;
  if (zlib.crc32(buffer.subarray(16, segmentHeaderBytes)) !== segmentSeed(buffer))
    return 'the checksum of its header differs';
  const flags = buffer.readUInt32LE(56);
  const header: SegmentHeader = {
    sequence: read64(buffer, 16),
    firstIndex: read64(buffer, 24),
    metadata: { clusterId: buffer.readBigUInt64LE(32), memberId: buffer.readBigUInt64LE(40) },
    previousCrc: buffer.readUInt32LE(48),
    salt: buffer.readUInt32LE(52),
    recycled: (flags & SegmentFlag.recycled) !== 0,
    hardState: { term: read64(buffer, 64), vote: buffer.readBigUInt64LE(72), commit: read64(buffer, 80) },
    marker:
      (flags & SegmentFlag.marker) === 0
        ? null
        : { index: read64(buffer, 88), term: read64(buffer, 96), reset: (flags & SegmentFlag.reset) !== 0 },
    previousTerm: read64(buffer, 104),
  };
  const { hardState, marker } = header;
  const numbers = [header.sequence, header.firstIndex, hardState.term, hardState.commit, header.previousTerm];
  if (marker !== null) numbers.push(marker.index, marker.term);
  if (!numbers.every(isCount) || header.firstIndex === 0) return 'its header holds impossible numbers';
  return header;
}

// --- sections: hot path, one call a batch; 34 ns for the copy of 300 bytes of data and 4 ns for the rest of an entry ---

export function encodeHardState(buffer: Buffer, at: number, state: WalHardState): number {
  buffer.writeUInt32LE(SectionKind.hardState, at);
  write64(buffer, state.term, at + 4);
  buffer.writeBigUInt64LE(state.vote, at + 12);
  write64(buffer, state.commit, at + 20);
  return at + hardStateBytes;
}

export function encodeMarker(buffer: Buffer, at: number, marker: WalSnapshotMarker): number {
  buffer.writeUInt32LE(SectionKind.marker, at);
  buffer.writeUInt32LE(marker.reset ? 1 : 0, at + 4);
  write64(buffer, marker.index, at + 8);
  write64(buffer, marker.term, at + 16);
  return at + markerBytes;
}

/** Room for `entries` at worst: a run each. */
export function entriesBytesMax(entries: readonly WalEntry[]): number {
  let bytes = entries.length * (entryHeaderBytes + runBytes);
  for (let i = 0; i < entries.length; i++) bytes += entries[i]!.data.length;
  return bytes;
}

/** Writes `entries`, whose indexes must be consecutive, as runs of one term each. */
export function encodeEntries(buffer: Buffer, start: number, entries: readonly WalEntry[]): number {
  let at = start;
  let runAt = -1;
  let runTerm = 0;
  let runCount = 0;
  const first = entries.length === 0 ? 0 : entries[0]!.index;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    assert(entry.index === first + i, 'entries of an append are consecutive');
    assert(entry.data.length <= walEntryBytesMax, 'the data of an entry fits its bound');
    if (runAt < 0 || entry.term !== runTerm) {
      if (runAt >= 0) buffer.writeUInt32LE(runCount, runAt + 4);
      buffer.writeUInt32LE(SectionKind.run, at);
      write64(buffer, entry.index, at + 8);
      write64(buffer, entry.term, at + 16);
      runAt = at;
      runTerm = entry.term;
      runCount = 0;
      at += runBytes;
    }
    runCount++;
    buffer.writeUInt32LE(entry.data.length * 4 + entry.type, at);
    entry.data.copy(buffer, at + entryHeaderBytes);
    at += entryHeaderBytes + entry.data.length;
  }
  if (runAt >= 0) buffer.writeUInt32LE(runCount, runAt + 4);
  return at;
}

export interface SectionVisitor {
  hardState(state: WalHardState): void;
  marker(marker: WalSnapshotMarker): void;
  /** The data are bytes [start, end) of `payload`. */
  entry(index: number, term: number, type: WalEntryType, payload: Buffer, start: number, end: number): void;
}

/** Calls `visitor` for each section of a payload; returns what is wrong with it, or null. */
export function decodeSections(payload: Buffer, visitor: SectionVisitor): string | null {
  let at = 0;
  while (at < payload.length) {
    if (payload.length - at < runBytes) return `a section is cut at byte ${at}`;
    const kind = payload.readUInt32LE(at);
    if (kind === SectionKind.hardState) {
      if (payload.length - at < hardStateBytes) return `a hard state is cut at byte ${at}`;
      const term = read64(payload, at + 4);
      const commit = read64(payload, at + 20);
      if (!isCount(term) || !isCount(commit)) return `a hard state at byte ${at} holds impossible numbers`;
      visitor.hardState({ term, vote: payload.readBigUInt64LE(at + 12), commit });
      at += hardStateBytes;
    } else if (kind === SectionKind.marker) {
      const index = read64(payload, at + 8);
      const term = read64(payload, at + 16);
      if (!isCount(index) || !isCount(term)) return `a snapshot marker at byte ${at} holds impossible numbers`;
      visitor.marker({ index, term, reset: payload.readUInt32LE(at + 4) !== 0 });
      at += markerBytes;
    } else if (kind === SectionKind.run) {
      const end = decodeRun(payload, at, visitor);
      if (typeof end === 'string') return end;
      at = end;
    } else return `a section at byte ${at} is of the unknown kind ${kind}`;
  }
  return null;
}

function decodeRun(payload: Buffer, start: number, visitor: SectionVisitor): number | string {
  const count = payload.readUInt32LE(start + 4);
  const first = read64(payload, start + 8);
  const term = read64(payload, start + 16);
  if (!isCount(first) || first === 0 || !isCount(first + count) || !isCount(term)) {
    return `a run of entries at byte ${start} holds impossible numbers`;
  }
  let at = start + runBytes;
  for (let i = 0; i < count; i++) {
    if (payload.length - at < entryHeaderBytes) return `an entry is cut at byte ${at}`;
    const word = payload.readUInt32LE(at);
    const type = word & 3;
    const length = word >>> 2;
    at += entryHeaderBytes;
    if (type === 3) return `an entry at byte ${at} is of the unknown type 3`;
    if (length > payload.length - at) return `the data of an entry at byte ${at} is cut`;
    visitor.entry(first + i, term, type as WalEntryType, payload, at, at + length);
    at += length;
  }
  return at;
}

// --- record header ---

export interface RecordPlace {
  /** The segment's seed. */
  readonly seed: number;
  /** Header CRC of the record before. */
  readonly previousCrc: number;
  readonly sequence: number;
  readonly number: number;
  readonly position: number;
}

/**
 * Makes bytes [0, used) of `buffer`, a gap for the header and then the payload, a record. There must be room for padding.
 * Returns the header CRC. The bytes to write are alignRecord(used).
 */
export function sealRecord(buffer: Buffer, used: number, place: RecordPlace, last: boolean): number {
  assert(used >= recordHeaderBytes && used <= walRecordBytesMax, 'a record has a header and fits its bound');
  assert(place.position % recordAlignment === 0, 'a record is aligned');
  const end = alignRecord(used);
  assert(end <= buffer.length, 'a record has room for its padding');
  buffer.fill(0, used, end);
  buffer.writeUInt32LE(recordMagicWord, 0);
  buffer.writeUInt32LE(zlib.crc32(buffer.subarray(recordHeaderBytes, end), place.seed), 8);
  buffer.writeUInt32LE(place.previousCrc, 12);
  buffer.writeUInt32LE(used - recordHeaderBytes, 16);
  buffer.writeUInt32LE(place.sequence >>> 0, 20);
  buffer.writeUInt32LE(place.number, 24);
  buffer.writeUInt32LE(place.position, 28);
  buffer.writeUInt32LE(last ? RecordFlag.last : 0, 32);
  buffer.writeUInt32LE(0, 36);
  const headerCrc = zlib.crc32(buffer.subarray(8, recordHeaderBytes), place.seed);
  buffer.writeUInt32LE(headerCrc, 4);
  return headerCrc;
}

/** A record's header as it stands in the file, its checksum and place verified, its chain not. */
export interface RecordHeader {
  readonly headerCrc: number;
  readonly payloadCrc: number;
  readonly previousCrc: number;
  readonly payloadBytes: number;
  readonly number: number;
  readonly last: boolean;
}

/** The header at `at`, if one of this segment and of exactly this position is there. */
export function decodeRecordHeader(
  buffer: Buffer,
  at: number,
  seed: number,
  sequence: number,
  position: number,
): RecordHeader | null {
  if (buffer.length - at < recordHeaderBytes || buffer.readUInt32LE(at) !== recordMagicWord) return null;
  if (buffer.readUInt32LE(at + 20) !== sequence >>> 0 || buffer.readUInt32LE(at + 28) !== position) return null;
  const headerCrc = buffer.readUInt32LE(at + 4);
  if (zlib.crc32(buffer.subarray(at + 8, at + recordHeaderBytes), seed) !== headerCrc) return null;
  return {
    headerCrc,
    payloadCrc: buffer.readUInt32LE(at + 8),
    previousCrc: buffer.readUInt32LE(at + 12),
    payloadBytes: buffer.readUInt32LE(at + 16),
    number: buffer.readUInt32LE(at + 24),
    last: (buffer.readUInt32LE(at + 32) & RecordFlag.last) !== 0,
  };
}

/** Whether the padded payload is what the record's header says. */
export function payloadMatches(payload: Buffer, header: RecordHeader, seed: number): boolean {
  return zlib.crc32(payload, seed) === header.payloadCrc;
}
