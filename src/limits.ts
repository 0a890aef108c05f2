// Every bound of the server with its reason; relations between them are asserted at load. One section a folder, in the
// order of the import table. Tests may shrink the tuning ones. Not for a user's settings: those are flags (src/config).

import { assert } from './base/assert.ts';

// --- http2 ---
export interface Http2Limits {
  readonly frameBytesMax: number;
  readonly headerTableBytes: number;
  readonly encoderTableBytesMax: number;
  readonly headerBlockBytesMax: number;
  readonly headerListBytesMax: number;
  readonly continuationFramesMax: number;
  readonly cachedBlockBytesMax: number;
  readonly streamsMax: number;
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly outputChunkBytes: number;
  readonly outputPumpBytes: number;
  readonly outputDirectBytes: number;
  readonly outputPauseBytes: number;
  readonly sendQuantumBytes: number;
  readonly flushTurnBytes: number;
  readonly streamHighWaterBytes: number;
  readonly streamLowWaterBytes: number;
  readonly pendingRefuseBytes: number;
  readonly roomBytes: number;
  readonly pendingCloseBytes: number;
  readonly chunkPoolCount: number;
  readonly floodBurst: number;
  readonly floodPerSecond: number;
  readonly floodRefund: number;
  readonly floodSettingsCost: number;
  readonly floodStreamsChanged: number;
  readonly resetBurst: number;
  readonly resetPerSecond: number;
  readonly violationBurst: number;
  readonly violationPerSecond: number;
  readonly closeLingerMs: number;
}
export const http2Limits: Http2Limits = {
  /** SETTINGS_MAX_FRAME_SIZE: RFC 9113's smallest and grpc's only value; more would only grow what a partial frame holds. */
  frameBytesMax: 16_384,
  /** SETTINGS_HEADER_TABLE_SIZE: the default; a gRPC client's fields take some 500 bytes of it. */
  headerTableBytes: 4_096,
  /** Our encoder uses no more of the peer's table: two fields settle in it (grpc/response-blocks.ts). */
  encoderTableBytesMax: 4_096,
  /** Encoded header block over HEADERS and CONTINUATION: four frames; clients send 100 B, with a JWT 2 KiB. Beyond: GOAWAY. */
  headerBlockBytesMax: 65_536,
  /** Decoded list by RFC 9113's count (name + value + 32): stops an HPACK bomb (1 byte may name a 4 KiB field). */
  headerListBytesMax: 65_536,
  /** A block of the size above needs four; empty ones cost nothing to send (CONTINUATION flood, CVE-2024-27316). */
  continuationFramesMax: 16,
  /** Blocks up to this are remembered with their decoding; a settled gRPC client's have 10 to 40 bytes. */
  cachedBlockBytesMax: 128,
  /** Open streams of a connection when no --max-concurrent-streams is given: some 0.5 KB each, so 32 MB. */
  streamsMax: 65_536,
  /** Receive window of a stream, the protocol's default: most requests fit, bigger messages get a grant (grpc/assembly-grants.ts). */
  streamWindowBytes: 65_535,
  /** Receive window of a connection: returned when half is used, whatever the streams do, so it only spans a round trip. */
  connectionWindowBytes: 4 * 1024 * 1024,
  /** Output is written into chunks of this size, shared by all connections: one socket write of a busy turn. */
  outputChunkBytes: 65_536,
  /** Queued (large) data enters the output only up to here, so that a small frame never waits behind more. */
  outputPumpBytes: 256 * 1024,
  /** Small messages may pass the queued data up to here; then they queue too. */
  outputDirectBytes: 1024 * 1024,
  /** Output that the kernel did not take, beyond which we stop reading from the peer (slow reader, PING flood). */
  outputPauseBytes: 4 * 1024 * 1024,
  /** Bytes of one stream in a round of the round robin: one frame. */
  sendQuantumBytes: 16_384,
  /** Bytes that one flush of one connection may write before the others have their turn. */
  flushTurnBytes: 1024 * 1024,
  /** A stream's unsent bytes at which send() answers false, and below which onDrain is called. */
  streamHighWaterBytes: 64 * 1024,
  streamLowWaterBytes: 16 * 1024,
  /** Unsent bytes of all streams (their reader is slow or gives no window) at which new streams are refused. */
  pendingRefuseBytes: 64 * 1024 * 1024,
  /** So little waits that those who have waited for it begin again (grpc/call.ts, whenRoom). */
  roomBytes: 40 * 1024 * 1024,
  /** ... and at which a further answer closes the connection instead of being queued. */
  pendingCloseBytes: 256 * 1024 * 1024,
  /** Output chunks and partial-frame buffers kept for reuse: enough for the connections of one turn. */
  chunkPoolCount: 64,
  /** Frames that carry nothing (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, unknown): burst, refill, ... */
  floodBurst: 10_000,
  floodPerSecond: 1_000,
  /** ... and what each request or DATA frame gives back: grpc-go sends two WINDOW_UPDATEs and a PING for one. */
  floodRefund: 4,
  /** A SETTINGS frame costs so many of them, and one more for each so many open streams, when it changes their windows. */
  floodSettingsCost: 20,
  floodStreamsChanged: 20,
  /** Streams that the client resets before they are answered (rapid reset, CVE-2023-44487). Answered ones give back. A client
   *  whose 1000 calls all run into their deadline stays below; each costs us 3 us. */
  resetBurst: 2_000,
  resetPerSecond: 500,
  /** Streams that we reset because of the client's fault (MadeYouReset, CVE-2025-8671). Real clients cause none. */
  violationBurst: 100,
  violationPerSecond: 10,
  /** After GOAWAY the socket is ended; a peer that does not read is cut after this (grpc-go's one second). */
  closeLingerMs: 1_000,
};

// --- grpc ---
export interface GrpcLimits {
  readonly assemblyGrantBytes: number;
  readonly assemblyBytesMax: number;
  readonly httpBodyBytesMax: number;
  readonly statusMessageBytesMax: number;
  readonly timerTickMs: number;
  readonly drainPingMs: number;
  readonly sniffTimeoutMs: number;
  readonly connectionsMax: number;
  readonly listenBacklog: number;
}
export const grpcLimits: GrpcLimits = {
  /** Window beyond the default that may be granted at once to messages of a connection that did not fit in it. */
  assemblyGrantBytes: 64 * 1024 * 1024,
  /** Bytes of incomplete messages that a connection may hold; beyond, the stream that asks for more fails. */
  assemblyBytesMax: 128 * 1024 * 1024,
  /** Body of a request that is not gRPC (JSON gateway): as large as etcd's gateway takes, its gRPC message bound. */
  httpBodyBytesMax: 2 * 1024 * 1024,
  /** A grpc-message is cut here: clients refuse header lists above 8 to 16 KiB. */
  statusMessageBytesMax: 4_096,
  /** Deadlines and keepalive are looked at this often: clients watch their own deadlines to the millisecond. */
  timerTickMs: 25,
  /** A draining connection's second GOAWAY waits this long for the PING's answer (grpc-go). */
  drainPingMs: 5_000,
  /** A connection must show by then which protocol it speaks (grpc-go's connection timeout). */
  sniffTimeoutMs: 120_000,
  /** Connections of one listener; beyond, new ones are closed at once. Below the usual limit of 65,536 open files. */
  connectionsMax: 60_000,
  /** Connections that the kernel holds while the loop is busy: as many as it allows (somaxconn cuts it), as Go asks for. */
  listenBacklog: 65_535,
};

// --- proto ---
/** Groups in a group (skipped without recursion), and messages in a message: where Go's decoder stops. */
export const wireGroupsNestedMax = 10_001;
export const messagesNestedMax = 10_000;
/** Of a Txn that many are read, two a level: reading, checking and applying recurse. More than --max-txn-ops' default lets through. */
export const txnMessagesNestedMax = 600;

// --- raft ---
/** Readies whose writes are in flight and told apart. Beyond it they are acknowledged together: a stalled disk costs no memory. */
export const raftWritesInFlightMax = 1024;
/** Reads that a leader holds until a majority confirms it. The server batches reads, so few are ever open; a caller asks again. */
export const raftReadsPendingMax = 4096;
/** One append message, as in etcd: large enough to amortise the round trip, small enough not to hold up a heartbeat. */
export const raftMessageBytesMax: number = 1024 * 1024;
/** Append messages in flight to one follower, as in etcd. */
export const raftMessagesInFlightMax = 512;

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

/** Memory that nobody uses is given back when it is so much (io/memory-return.ts), since giving it back stops the core. */
export const memoryReturnWorthBytes: number = 256 * 1024 * 1024;
export const memoryReturnLookMs = 5_000;

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

// --- mvcc ---

/** What a read does in one turn of the event loop before the others have theirs; it goes on in the next one. */
export interface ReadSlice {
  readonly keys: number;
  readonly bytes: number;
  readonly countKeys: number;
}
export const readSlice: ReadSlice = {
  /** Keys with their values: 1.3 to 2.8 us each. Above any page that Kubernetes asks for, so that those take one turn. */
  keys: 1_000,
  /** Bytes of values: large ones cost their copy, 0.3 ms. */
  bytes: 1024 * 1024,
  /** Keys or rows that a count looks at: 0.5 to 1.5 us each. */
  countKeys: 2_000,
};
/** In one turn, whatever it takes: inside an apply, and for what is bounded already. */
export const wholeRead: ReadSlice = { keys: Infinity, bytes: Infinity, countKeys: Infinity };

/** Keys of a range (of 1 KiB at most on average) that a delete reads ahead of its deletes. */
export const liveKeysRead = 1_000;

/** What is remembered of paged listings. */
export interface PageRemainderLimits {
  readonly entriesMax: number;
  readonly keyBytesMax: number;
}
export const pageRemainderLimits: PageRemainderLimits = {
  /** A listing needs one at a time: far more listings than a cluster has at once. With keys of 100 B some 1.5 MB. */
  entriesMax: 4_096,
  /** ... and the bytes of their keys, one of which may take a quarter. */
  keyBytesMax: 1024 * 1024,
};

/** Encoded events gathered before they are handed out within a turn: a turn may apply thousands of large puts. */
export const watchGroupBodyBytesMax: number = 1024 * 1024;
/** Events up to this size are copied into each watcher's answer; larger ones are shared by reference until they are sent. */
export const watchCopyBytesMax: number = 16 * 1024;
/** Batches of events kept for reuse: as many groups get events in one turn of a busy cluster. */
export const watchBatchesKept = 256;
/** Watchers that share one catch-up slice (etcd's number). */
export const watchCatchUpWatchersMax = 512;
/** Watchers looked at to find them: 50 us. */
export const watchCatchUpSeenMax = 2048;
/** Rows of a catch-up slice: about 3 ms, to delay nobody else's turn. More when less would not gain on writers (watch-hub.ts). */
export const watchCatchUpRows = 1000;
/** The most that one slice reads, whatever the writers do: about 30 ms. Who does not gain with it is cancelled by a compaction. */
export const watchCatchUpRowsMax = 10_000;

// --- lease ---

/** etcd's bound: a TTL above it overflows Go's durations. */
export const leaseTtlMaxSeconds = 9_000_000_000;
/** Revokes a second, so that a mass expiry does not crowd out clients (etcd's rate). */
export const leasesPerSecondMax = 1000;
/** How often the primary looks for expired leases. */
export const leaseTickMs = 500;
/** Revokes of one tick. */
export const leaseRevokesPerTickMax: number = (leasesPerSecondMax * leaseTickMs) / 1000;
/** Between two checkpoints of a lease's remaining TTL (etcd's default). */
export const leaseCheckpointIntervalMs: number = 5 * 60 * 1000;
/** Checkpoints in one entry (etcd's bound on a batch). */
export const leaseCheckpointsMax = 1000;

// --- apply ---

/**
 * The answer of a Txn or a delete with previous values: it is built in one turn, in an apply, and is one buffer (but for a Txn that
 * only reads). Beyond it the writes are applied and the answer is the error that a message too large for gRPC has.
 */
export const applyAnswerBytesMax: number = 128 * 1024 * 1024;
/** A response's buffer that grew beyond this is given back after its answer: most answers are small, a list may be hundreds of MB. */
export const applyBodyBytesKept: number = 4 * 1024 * 1024;

// --- server ---

/** How long the core waits for a WAL sync before it goes on by message: several times a good disk's p99, far below a heartbeat. */
export const walWaitMs = 2;
/** Proposals that are not on their way to the disk yet: what a stalled disk may gather before clients are refused. */
export const unsyncedBytesMax: number = 64 * 1024 * 1024;
/** Proposals of one turn from which on the loop reads sockets while the disk syncs: fewer come from few clients, who wait. */
export const overlapProposalsMin = 32;
/** Committed but unapplied entries beyond which proposals are refused (etcd's maxGapBetweenApplyAndCommitIndex). */
export const applyGapMax = 5000;
/** Entries of a turn while a member catches up with its log: 5 us each, so that the flusher is heard in between. */
export const applyTurnEntries = 5000;
/** Committed entries that raft hands out before those handed out are applied. */
export const applyHandedOutBytesMax: number = 4 * 1024 * 1024;
/** A request's time-out beside two election timeouts (etcd's ReqTimeout). */
export const requestTimeoutBaseMs = 5000;
/** Entries that the log in memory may exceed --snapshot-catchup-entries by before it is cut: cutting copies the rest. */
export const logCompactionSlack = 10_000;
/** Proposals in the log that are not applied yet: beyond it raft drops (etcd's number). */
export const raftUncommittedBytesMax: number = 1024 * 1024 * 1024;
/** How long calls may go on after SIGTERM; then all that is left is the disk's work (main.ts waits for no client any more). */
export const shutdownGraceMs = 500;
/** Within this after SIGTERM a supervisor expects the end. */
const shutdownMs = 1500;
/** Hashes of compactions that are remembered (etcd's number). */
export const compactionHashesMax = 10;
/** How often revision-mode compaction looks (etcd's interval). */
export const autoCompactionIntervalMs: number = 5 * 60 * 1000;
/** A linearizable read may wait this much longer than a proposal, for the state machine to catch up. */
export const readCatchUpMs = 1000;

// --- rpc ---

/** Ranges, Txns of them and lists that take more than a turn (rpc/big-reads.ts). */
export type BigReadLimits = Readonly<typeof bigReadLimits>;
export const bigReadLimits = {
  slice: readSlice as ReadSlice,
  /** An answer with its header: what etcd's server sends and its Go client takes (MaxInt32). */
  answerBytesMax: (2 ** 31 - 1) as number,
  /** Held by answers that are being read, all together; beyond it only the oldest goes on. Ten lists of everything in a cluster. */
  assembledBytesMax: (1024 * 1024 * 1024) as number,
  /** Complete answers that a connection has not taken, beyond which its other big reads wait. */
  sendingBytesMax: (256 * 1024 * 1024) as number,
  /** The same of all connections together, beyond which all big reads wait, and answers of which nothing is taken are ended. */
  unreadBytesMax: (1024 * 1024 * 1024) as number,
  /** Big reads of a connection under way: each holds a slice at least, in the end in the connection. */
  connectionReadsMax: 32,
  /** Answers of a connection that were not sent, beyond which all its reads wait. Above what its big reads have on their way. */
  unsentBytesMax: (48 * 1024 * 1024) as number,
  /** Requests of a connection that wait for any of those: a kube-apiserver lists each of its some hundred kinds once as it starts. */
  connectionWaitingMax: 10_000,
  /** ... and of all connections: a call that waits holds some 1 KB beside its request, so 50 MB. */
  waitingMax: 50_000,
  /** Requests of a connection that wait, by their bytes: ten of the largest (--max-request-bytes); a list's has some 100 bytes. */
  connectionWaitingBytesMax: (16 * 1024 * 1024) as number,
  /** ... and of all connections. The same again of reads that wait for the leader's word (server/read-queue.ts). */
  waitingBytesMax: (64 * 1024 * 1024) as number,
  /** An answer of which nothing is taken for this long makes room when room is needed: no client that reads pauses for longer. */
  idleMs: 5_000,
  /** A read that stands still keeps compaction, Hash and Defragment waiting, an answer that is not taken memory: as for snapshots. */
  stallMs: 120_000,
  /** How often the two above are looked at: small beside either. */
  lookMs: 1_000,
};

/** Election timeouts without a leader after which streams that want one end (etcd's number): a normal election is none of them. */
export const leaderlessChecksMax = 3;
/** Keys in a RangeStream's first chunk (etcd's number): the first keys arrive at once. */
export const rangeStreamChunkKeysFirst = 10;
/** A RangeStream's chunks grow towards this, or --max-request-bytes if that is less: from 64 KiB to 1.5 MiB the CPU is the same. */
export const rangeStreamChunkBytesMax: number = 256 * 1024;
/** Snapshot streams at once: each has a thread and pins the database's pages for as long as its client takes. */
export const snapshotStreamsMax = 4;
/** A snapshot's client must take some of what waits for it (48 KiB) within this. Meanwhile no page that its state needs is used again:
 * under 10,000 puts of 1 KB a second this is a database larger by 1.2 GB, and a disk that stalls for longer is broken. */
export const snapshotStallMs = 120_000;
/** A blob of the Snapshot stream (etcd's number). */
export const snapshotBlobBytes: number = 32 * 1024;

// --- admin ---

/** Request line and headers of HTTP/1.1, held for each connection. Go allows 1 MiB; ours are probes, scrapes, JSON with a token. */
export const http1HeaderBytesMax: number = 64 * 1024;
/** Time for a request's headers to arrive, etcd's ReadHeaderTimeout. */
export const http1HeadersTimeoutMs: number = 300_000;
/** An idle keep-alive connection is closed after this; longer than any usual scrape or probe period, so that a client's
 * request rarely meets a connection that is just closing. */
export const http1IdleTimeoutMs: number = 180_000;
/** A body that a GET endpoint is sent: read and dropped up to here, then the connection ends. */
export const http1IgnoredBodyBytesMax: number = 64 * 1024;
/** A failpoint's term, or several in one PUT. */
export const failpointBodyBytesMax: number = 4096;
/** Distinct client-api-version values counted apart; more (the header is the client's choice) are counted as "other". */
export const metricClientVersionsMax: number = 64;
/** Log text waiting for a reader that does not read; beyond it lines are dropped and counted, never waited for. */
export const logBacklogBytesMax: number = 1024 * 1024;
/** How long the last flush at exit waits for such a reader: the last line says why the process ends, and a reader on a busy machine may
 * be off for a second or two. */
export const logExitFlushMsMax: number = 3000;
/** Of one message at one level the first this many in a second are written, then one of each logSampleEach (zap's
 * settings in etcd): a failing disk or peer must not turn into a log flood. */
export const logSampleFirst: number = 100;
export const logSampleEach: number = 100;
/** Distinct messages that are counted for sampling; beyond it new ones are not sampled. */
export const logSampleMessagesMax: number = 4096;

// --- client ---

/** Requests that a client sends at most (clientv3's default, above the server's 1.5 MiB). */
export const clientRequestBytesMax: number = 2 * 1024 * 1024;
/** Attempts of a call that is safe to repeat (clientv3's default). */
export const clientAttemptsMax = 100;
/** Wait between two rounds over the endpoints, in ms, with a tenth of jitter (clientv3's default). */
export const clientBackoffMs = 25;
/** A lost watch or keep-alive stream is opened again after this at most. */
export const clientStreamBackoffMsMax = 500;
/** Responses that a watch holds for a consumer that does not take them; beyond it the stream is no longer read. */
export const clientWatchQueueMax = 1000;
/** Shortest period of pings: servers close the connection of who pings faster than every five seconds (grpc-go's floor). */
export const clientKeepAliveMsMin = 10_000;

// --- relations ---
assert(2 * shutdownGraceMs < shutdownMs, 'of the time to the end, the larger part is left for the disk');
assert(watchCatchUpRows <= watchCatchUpRowsMax, 'a slice of catching up has its usual size within its bound');
assert(lmdbReadersOfServer >= 2 * (3 + 2 * snapshotStreamsMax), 'each snapshot has its readers');
assert(lmdbReadersOfServer < lmdbReadersMax, 'LMDB has a reader for everybody');
assert(0x100000000 % walRequestsMax === 0, 'slots of the WAL thread survive the wrap of 32-bit sequences');
assert(walRemovalsMax + 2 < walRequestsMax, 'the WAL thread has room for a write and the removals');
assert(walBufferBytes <= walBufferBytesKeep && walBufferBytesKeep <= walRecordBytesMax, 'WAL buffers grow to a record');
assert(walEntryBytesMax < walRecordBytesMax, 'an entry fits a WAL record');
assert(http2Limits.outputPumpBytes < http2Limits.outputDirectBytes, 'small answers pass the queued ones');
assert(http2Limits.outputDirectBytes < http2Limits.outputPauseBytes, 'output is queued before input is paused');
assert(http2Limits.streamLowWaterBytes < http2Limits.streamHighWaterBytes, 'a stream drains before it fills');
assert(http2Limits.pendingRefuseBytes < http2Limits.pendingCloseBytes, 'streams are refused before it is closed');
assert(http2Limits.sendQuantumBytes <= http2Limits.outputChunkBytes, 'a frame fits in an output chunk');
assert(http2Limits.frameBytesMax <= http2Limits.headerBlockBytesMax, 'a header block may fill a frame');
assert(2 * bigReadLimits.connectionReadsMax * readSlice.bytes <= http2Limits.pendingRefuseBytes, 'calls have room');
assert(bigReadLimits.sendingBytesMax <= bigReadLimits.unreadBytesMax, 'one connection does not hold up all others');
assert(http2Limits.roomBytes < bigReadLimits.unsentBytesMax, 'who waits for room has none');
assert(bigReadLimits.connectionReadsMax * readSlice.bytes < http2Limits.roomBytes, 'big reads leave room');
assert(bigReadLimits.unsentBytesMax < http2Limits.pendingRefuseBytes, 'reads wait before streams are refused');
assert(bigReadLimits.connectionWaitingBytesMax < bigReadLimits.waitingBytesMax, 'nor takes all place to wait');
assert(bigReadLimits.idleMs < bigReadLimits.stallMs, 'an idle answer has not stalled yet');
assert(2 * applyAnswerBytesMax <= http2Limits.pendingCloseBytes, 'an answer of a Txn leaves room for others');
assert(grpcLimits.assemblyGrantBytes <= grpcLimits.assemblyBytesMax, 'what is granted may be held');
