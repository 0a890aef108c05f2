// Bounds of what is on the disk: the log, snapshots, the database with its memtable and index. Beside limits.ts, under the same rules.

import { assert } from './base/assert.ts';

// --- wal ---

/** Size of a segment before the next one begins: etcd's 64 * 1000 * 1000. */
export const walSegmentBytes = 64_000_000;

/** A record (one sync's entries) that is larger is a bug above: the server bounds what it proposes at once far below. */
export const walRecordBytesMax = 0x40000000;

/** First size of each of the two buffers in which records are built: a few batches of 500 entries of 300 B. */
export const walBufferBytes: number = 1 << 20;

/** A buffer that had to grow beyond this for a burst is given back after its write. */
export const walBufferBytesKeep: number = 16 << 20;

/** Data of one entry: its length shares 32 bits with the entry's type. */
export const walEntryBytesMax = 0x3fffffff;

/** Free space, in segments, below which no segment is prepared: a small disk is for data first. */
export const walSpareFreeSegmentsMin = 2;

/** How often a segment's growth brings another try to prepare the next one: at most half of these come. */
export const walSpareTriesMax = 8;

/** Requests between the core and the WAL thread; one write and a few removals can be under way. */
export const walRequestsMax = 64;

/** Removals of segments under way; the others wait for the next release. */
export const walRemovalsMax = 16;

/** What the reader takes from a segment at once; a larger record is read whole. */
export const walReadBytes: number = 1 << 20;
/**
 * A record at the WAL's end whose checksum is wrong is searched for a flipped bit if it has no more. Of torn ones of this size one in 65,000
 * has by chance a bit that mends it, and a member would not start again for a power cut that had done no harm; most records are a tenth of it.
 */
export const walFlippedBitBytesMax: number = 8 * 1024;

// --- snapshot ---

/** A chunk of the bbolt writer: two 32 KiB blobs of the Snapshot RPC, small against a socket's buffer. */
export const snapshotChunkBytes: number = 64 * 1024;
/** Entries between two yields of the writer's first pass: about a millisecond of lengths, so that heartbeats go on. */
export const snapshotPlanSliceEntries = 4096;
/** bbolt's MaxKeySize; a longer key in a file is damage. */
export const boltKeyBytesMax = 32768;
/** bbolt's MaxValueSize. */
export const boltValueBytesMax: number = 2 ** 31 - 2;
/** A page with its overflow that the reader takes into memory. bbolt puts up to four large values on one page: this allows
 * values of 256 MiB, far over any request limit, while a damaged overflow count cannot exhaust memory. */
export const boltPageBytesMax: number = 1024 * 1024 * 1024;
/** A branch page with its overflow: four of the longest keys, beyond which bbolt splits a page that is larger than one. */
export const boltBranchBytesMax: number = 256 * 1024;
/** Levels of a B+tree: 2^64 pages at bbolt's least fan-out of two. Real ones have four or five; a cycle ends here. */
export const boltTreeDepthMax = 64;
/** Buckets inside buckets. etcd nests none; a bucket that names an ancestor's page as its root ends here. */
export const boltBucketDepthMax = 16;
/** Read at once when a whole file is hashed or its freelist walked. */
export const boltReadBytes: number = 1024 * 1024;

// --- backend ---

/** Larger than the usual 4096: with it LMDB takes keys of 4,026 bytes and index merges write a third less. */
export const lmdbPageBytes = 8192;
/** What a sound database file may lack at its end: pages of its newest transaction that were freed again, seen up to a few. */
export const lmdbShortBytesMax: number = 1024 * 1024;
/** LMDB's bound on a key at that page size (the package's fixed buffer holds no more). */
export const lmdbKeyBytesMax = 4026;
/** The map is address space, reserved once because growing it would stop every thread: far above any sensible quota. */
export const lmdbMapBytes: number = 1024 * 1024 * 1024 * 1024;
/** How the map is seen (io/lmdb-map.ts). Tests shrink it. */
export interface LmdbWindows {
  readonly bytes: number;
  readonly overlapBytes: number;
}
export const lmdbWindows: LmdbWindows = {
  /** Seen through one buffer; a power of two, far below 2^31, so that offsets stay small integers. V8 counts a window as memory
   * outside of its heap, and collects when one is made. */
  bytes: 256 * 1024 * 1024,
  /** What a window has of the next one: a value larger than that is copied where it crosses the end of a window. */
  overlapBytes: 16 * 1024 * 1024,
};
/** Levels of a tree: LMDB's own bound (CURSOR_STACK). */
export const lmdbLevelsMax = 32;
/** Free space that a new database needs: two meta pages, a few tables, and the lock file, with room to spare. */
export const lmdbOpenFreeBytesMin: number = 256 * 1024;
/** Disk space that a defragmentation leaves beside its copy, for what is written meanwhile: two segments of the log. */
export const defragSpareBytes: number = 128 * 1024 * 1024;
/** Named tables: etcd's ten buckets, ours, and room for buckets of newer versions in a restored snapshot. */
export const lmdbTablesMax = 32;
/** Read transactions at once that LMDB's lock file has room for; LMDB's default is 126. */
export const lmdbReadersMax = 64;
/** Those that the server needs at most: core and flusher, the view of a job (a hash, a defragmentation), and of each snapshot its
 * thread's and the pinned one; each twice, since a view that has ended keeps its place until it is used again. */
export const lmdbReadersOfServer: number = 2 * (3 + 2 * 4);

/** Rows that a scan looks up together: with 16 most of the waiting for memory overlaps, more gains nothing and may be read in vain. */
export const rowsAheadMax = 16;

/** The memtable and its flusher (backend/). Tests shrink them at random. */
export interface BackendLimits {
  readonly slabBytes: number;
  readonly slabsFreeMax: number;
  readonly commitRows: number;
  readonly commitBytes: number;
  readonly commitPartMs: number;
  readonly garbageBlockEntries: number;
  readonly mergeEntries: number;
  readonly mergeSliceKeys: number;
  readonly mergeStepKeys: number;
  readonly indexLagEntriesMax: number;
  readonly mergeIdleTicks: number;
  readonly compactSliceRows: number;
  readonly compactCollectRows: number;
  readonly compactRoundRows: number;
  readonly hashSliceRows: number;
  readonly hashSliceBytes: number;
  readonly hashSliceMs: number;
  readonly hashFoldRows: number;
  readonly rowHashesMax: number;
  readonly jobLagBytes: number;
  readonly jobStepMs: number;
  readonly backlogBytesMax: number;
  readonly backlogRowsMax: number;
  readonly snapshotChunksInFlight: number;
  readonly defragCatchUpRows: number;
  readonly defragLastRoundRows: number;
  readonly defragRoundsMax: number;
}
export const backendLimits: BackendLimits = {
  /** Rows of 300 B: 14,000, a little more than a batch, so that few slabs are in use at any time. */
  slabBytes: 4_194_304,
  /** Slabs (and chunks of row locations) kept for reuse: clearing new memory costs as much as writing the rows. */
  slabsFreeMax: 8,
  /** Rows of one commit: 10,000 take 20 to 40 ms with their sync (etcd's --backend-batch-limit has the same default). */
  commitRows: 10_000,
  /** Bytes of one commit: a disk of 200 MB/s writes them in 40 ms. A larger single apply is still one commit. */
  commitBytes: 8_388_608,
  /** Time that a commit may spend on rows, and again on a merge, before it is synced: on a slow or busy machine it ends there
   * and the counts above do not matter, so that the p99 of commits stays below 100 ms. */
  commitPartMs: 30,
  /** Entries of a block of `garbage` (24 B each): two blocks share a page, none overflows. */
  garbageBlockEntries: 160,
  /** Changed keys after which the index delta is merged: below 100,000 a merge costs twice as much a key. The restart
   * reads what is not merged: this many while being merged and as many that came meanwhile. */
  mergeEntries: 100_000,
  /** Keys of one commit's part of a merge: 10,000 random leaf pages are at most 80 MB; measured 30 to 60 ms. */
  mergeSliceKeys: 10_000,
  /** Keys between two looks at the clock inside of that. */
  mergeStepKeys: 1_000,
  /** Changes that the index tables lack: above it proposals wait, since each takes 100 B of memory and the next start 1.2 us. A start
   * meets up to twice as many, half of which it only passes over: those that an unfinished merge has brought (and those of the starts before
   * it that were killed within their first merge). */
  indexLagEntriesMax: 250_000,
  /** Ticks (of --backend-batch-interval) without a write after which a small delta is merged: a restart scans nothing. */
  mergeIdleTicks: 50,
  /** Rows of one compaction slice: deletes of random rows touch a page each, as merges do. */
  compactSliceRows: 5_000,
  /** Garbage read between two looks for other work: about 5 ms. */
  compactCollectRows: 100_000,
  /** Rows that a compaction sorts at once: 26 MB. More are deleted in rounds. */
  compactRoundRows: 2_000_000,
  /** Rows read for a hash between two looks for other work: about 15 ms, and never longer. */
  hashSliceRows: 20_000,
  hashSliceBytes: 16_777_216,
  hashSliceMs: 15,
  /** Remembered hashes folded between two looks for other work: about 5 ms. */
  hashFoldRows: 500_000,
  /** Rows whose hashes are remembered, at 20 B each: 160 MB. With more of them a hash reads all rows, as etcd does. */
  rowHashesMax: 8_000_000,
  /** Bytes that the flusher may lag, in rows or behind a merge, before jobs (compactions) get a third of its time, not half. */
  jobLagBytes: 25_165_824,
  /** Longest time that jobs take between two commits: it adds to the latency of what waits for a flush. */
  jobStepMs: 60,
  /** Unflushed bytes at which proposals wait: a second or two of the fastest load. */
  backlogBytesMax: 100_663_296,
  /** ... and rows: more than a second of the fastest load. A start replays them from the log, at 5 us each. */
  backlogRowsMax: 150_000,
  /** Chunks of a snapshot on their way to the core: keeps the reader busy while one is sent; a slow client stops it. */
  snapshotChunksInFlight: 16,
  /** Rows that a defragmented copy may lack when the flusher stops to copy the rest: about 50 ms. */
  defragCatchUpRows: 20_000,
  /** Rows of a round of catching up after which no merge of the index begins any more until the swap: half of what the delta may hold,
   * so that the last rounds end before proposals have to wait. */
  defragLastRoundRows: 125_000,
  /** Rounds after which it is so in any case: with each having less than the one before, more means that it does not gain. */
  defragRoundsMax: 10,
};

/** The key index (backend/index-*.ts). The numbers that shape the disk's content may change at any time: readers take any. */
export interface IndexLimits {
  readonly diskKeyBytes: number;
  readonly orderBlockIds: number;
  readonly deltaEntries: number;
  readonly keySlabBytes: number;
  readonly countBlockKeys: number;
  readonly countBlockKeysMin: number;
  readonly inlineRevisions: number;
  readonly chunkRevisions: number;
  readonly lifeEvents: number;
  readonly lifeBytes: number;
  readonly deadPageEntries: number;
}
export const indexLimits: IndexLimits = {
  /** Escaped bytes of a key that go into a table's key; with lease id, mark and ordinal it stays below lmdbKeyBytesMax. */
  diskKeyBytes: 3_900,
  /** Ids in a block of the delta's order: an insert moves half of them on average (1 KiB: 30 ns). */
  orderBlockIds: 512,
  /** Room of a new delta: above indexLagEntriesMax and what one turn may still apply, since growing copies all of it, 100 ms at
   * this size. Memory is taken as it is used, but for the hash table (8 MB). */
  deltaEntries: 524_288,
  /** Key bytes of a delta are allocated in such steps; a longer key gets a slab of its own. */
  keySlabBytes: 1_048_576,
  /** Live keys of a counted block: both edges of a range are counted natively, at 50 ns a key. 4,096 took 0.32 ms a count. */
  countBlockKeys: 2_048,
  /** Smaller blocks are joined with the one before, so that their number stays near entries / countBlockKeys. */
  countBlockKeysMin: 256,
  /** Older revisions kept in a key's entry (3 bytes each); half of them stay when the rest moves to a chunk. */
  inlineRevisions: 128,
  /** Revisions of a chunk in `hist`: at most some 2 KB, so a few of them share a page. */
  chunkRevisions: 512,
  /** Creates and deletes remembered for counts at older revisions: 8 minutes of a busy cluster (500/s). Older: a scan. */
  lifeEvents: 262_144,
  /** ... and the bytes of their keys. */
  lifeBytes: 16_777_216,
  /** Deleted keys that a scan at an older revision reads ahead at once, at most. */
  deadPageEntries: 256,
};

// --- relations ---
assert(lmdbReadersOfServer < lmdbReadersMax, 'LMDB has a reader for everybody');
assert(0x100000000 % walRequestsMax === 0, 'slots of the WAL thread survive the wrap of 32-bit sequences');
assert(walRemovalsMax + 2 < walRequestsMax, 'the WAL thread has room for a write and the removals');
assert(walBufferBytes <= walBufferBytesKeep && walBufferBytesKeep <= walRecordBytesMax, 'WAL buffers grow to a record');
assert(walEntryBytesMax < walRecordBytesMax, 'an entry fits a WAL record');
