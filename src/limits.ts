// Bounds, each with its reason; relations between them are asserted at load. One section a folder, in the order of the import table.
// Those of connections, of the storage and of the cluster have files of their own: connection-limits.ts, storage-limits.ts,
// cluster-limits.ts. Tests may shrink the tuning ones. Not for a user's settings: those are flags (src/config).

import { assert } from './base/assert.ts';
import { http2Limits } from './connection-limits.ts';
import { lmdbReadersOfServer } from './storage-limits.ts';

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
/** How long calls may go on after SIGTERM; then all that is left is the disk's work (process/shutdown.ts waits for no client any more). */
export const shutdownGraceMs = 500;
/** Within this after SIGTERM a supervisor expects the end. */
const shutdownMs = 1500;
/** Hashes of compactions that are remembered (etcd's number). */
export const compactionHashesMax = 10;
/** How often revision-mode compaction looks (etcd's interval). */
export const autoCompactionIntervalMs: number = 5 * 60 * 1000;
/** A linearizable read may wait this much longer than a proposal, for the state machine to catch up. */
export const readCatchUpMs = 1000;
/** Memory that nobody uses is given back when it is so much (io/memory-return.ts), since giving it back stops the core. */
export const memoryReturnWorthBytes: number = 256 * 1024 * 1024;
export const memoryReturnLookMs = 5_000;

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
assert(2 * bigReadLimits.connectionReadsMax * readSlice.bytes <= http2Limits.pendingRefuseBytes, 'calls have room');
assert(bigReadLimits.sendingBytesMax <= bigReadLimits.unreadBytesMax, 'one connection does not hold up all others');
assert(http2Limits.roomBytes < bigReadLimits.unsentBytesMax, 'who waits for room has none');
assert(bigReadLimits.connectionReadsMax * readSlice.bytes < http2Limits.roomBytes, 'big reads leave room');
assert(bigReadLimits.unsentBytesMax < http2Limits.pendingRefuseBytes, 'reads wait before streams are refused');
assert(bigReadLimits.connectionWaitingBytesMax < bigReadLimits.waitingBytesMax, 'nor takes all place to wait');
assert(bigReadLimits.idleMs < bigReadLimits.stallMs, 'an idle answer has not stalled yet');
assert(2 * applyAnswerBytesMax <= http2Limits.pendingCloseBytes, 'an answer of a Txn leaves room for others');
