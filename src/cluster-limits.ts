// Bounds of the cluster: peers, membership, leadership, catching up. Beside limits.ts, under the same rules: every bound with its
// reason, relations asserted at load.

import { assert } from './base/assert.ts';
import { raftMessageBytesMax } from './limits.ts';
import { lmdbReadersMax, lmdbReadersOfServer } from './storage-limits.ts';

// --- descriptors ---

/**
 * Of the process' open descriptors so many are not for clients, as in etcd (reservedInternalFDNum): a member that idles has 42 beside its
 * connections, a thread that sends or installs a snapshot ten more (there may be three), and to each of six others go some 5 connections.
 */
export const descriptorsReserved = 150;
/** ... of which so many are for connections of other members (each of six others has 2 streams, a probe, and a post or a request now and
 * then), and for monitors on addresses of their own. */
export const peerConnectionsReserved = 32;
export const monitorConnectionsReserved = 18;
/** Monitors also get that share of the rest, where there is much: scrapers and balancers keep theirs open. */
export const monitorConnectionsShare: number = 1 / 32;
export const monitorConnectionsMax = 512;
/** Other members also get that share of the rest: whoever forwards renewals of leases has peerSocketsMax of them at once, an etcd more. */
export const peerConnectionsShare: number = 1 / 8;
/** Beyond this no cluster goes: six others with peerSocketsMax and their streams are 400. Each may hold a body of peerBodyBytesMax. */
export const peerConnectionsMax = 2048;
/** Refused connections are told of so often: whoever is refused tries again at once. */
export const refusalLogPauseMs = 60_000;
/** A file of the log is opened so often, so far apart, while there is no descriptor: five seconds, in which dials end and silent peers go. */
export const openTriesMax = 500;
export const openTryPauseMs = 10;

// --- peers ---

/** Dialing a peer takes at most this and an election timeout, as etcd's peers do. */
export const peerDialBaseMs = 1000;
/** A request to a peer beside raft's own traffic (members, version, leases, hashes): etcd's peer round tripper gives up after this. */
export const peerRequestTimeoutMs = 5000;
/** The answer to such a request: the largest is a member list. */
export const peerAnswerBytesMax: number = 4 * 1024 * 1024;
/** The body of such a request: leases, hash requests. */
export const peerBodyBytesMax: number = 64 * 1024;

// --- raft's own traffic ---

/** Peer URLs to which connections are kept: members times their URLs, of clusters far beyond what raft is for. */
export const peerAgentsMax = 64;
/** Requests under way to one peer, each on a connection; more wait. Forwarded lease renewals come by hundreds at once. */
export const peerSocketsMax = 64;
/** The head of the answer to a stream's request: etcd sends 200 bytes. */
export const peerHeadBytesMax: number = 16 * 1024;
/** The body of a refusal is a line. */
export const peerRefusalBytesMax = 4096;
/**
 * A stream's output in one turn of common size; larger ones grow, and give back what is beyond the second bound: a follower passes on the
 * largest request of --max-request-bytes' default in it.
 */
export const peerOutputBytesInitial: number = 64 * 1024;
export const peerOutputBytesKept: number = 2 * 1024 * 1024;
/** An entry from so many bytes on goes to the streams from where it is: below, a copy costs less than another piece of a write. */
export const peerSpliceBytesMin: number = 64 * 1024;
/** A snapshot's transfer ends when the other end takes nothing for so long, or, with all sent, gives no answer: it writes and syncs it. */
export const snapshotStallTimeoutMs = 60_000;
export const snapshotAnswerTimeoutMs = 600_000;
/** A snapshot of which nothing has come for so long is given up, and its connection with it: its sender reads from a disk, and may wait for
 * that. */
export const snapshotSilenceTimeoutMs = 30_000;
/** Any other body, as etcd's read timeout. */
export const peerBodySilenceMs = 5000;
/** The message before a snapshot's database, which holds no data of it: etcd's bound. */
export const snapshotMessageBytesMax: number = 64 * 1024 * 1024;
/**
 * What a stream's writer keeps for a peer that is slow to take it; beyond it messages are dropped. etcd keeps 4096 messages of up to 1 MiB.
 */
export const peerUnsentBytesMax: number = 16 * 1024 * 1024;
/**
 * Appends that raft has under way to a peer, in bytes (etcd: no bound but 512 of them). What catches up by the log never meets the bound
 * above, by which appends would be lost and sent again; 8 MiB fill a line of 1 Gb/s and 60 ms.
 */
export const raftInFlightBytesMax: number = 8 * 1024 * 1024;
/** And so many turns' writes, each of which costs a few hundred bytes beside its own: heartbeats and answers are small. */
export const peerUnsentWritesMax = 4096;
/** etcd's: posts under way to a peer, messages that wait for one. */
export const peerPostsInFlightMax = 4;
export const peerPostsWaitingMax = 64;
/** A post without an answer: a message of 1 MiB on a line of 100 KB/s, twice. Its body takes the receiver as long. */
export const peerPostTimeoutMs = 20_000;
export const peerBodyTimeoutMs = 20_000;
/** Members that are known by their requests alone: those that join, one or a few at a time. Each may have peerPostsInFlightMax under way. */
export const peerRemotesMax = 16;
/** Ids and addresses, of what is no member, that have a series of metrics of their own: those of members that joined and were removed. */
export const senderLabelsMax = 64;
/**
 * A message that a peer sends, as in etcd (readBytesLimit). raft makes them of raftMessageBytesMax or of one larger request, so that
 * more is damage or another protocol. Memory is taken as the bytes arrive, not by what a length says.
 */
export const peerMessageBytesMax: number = 512 * 1024 * 1024;
/**
 * Posted messages that have not come whole take no more together; beyond it the oldest is given up. Room for the largest there may be, and
 * without streams six members post four messages of 1 MiB each, or of one larger request: of 20 MiB they fit, too.
 */
export const peerUnfinishedBytesMax: number = 512 * 1024 * 1024;
/** First memory for one; it doubles as bytes arrive, up to what is announced. Most are smaller. */
export const peerUnfinishedBytesInitial: number = 64 * 1024;
/**
 * Entries in one message: the smallest, a term and an index, takes four bytes, so that no sender gets more of them into
 * raftMessageBytesMax. Beyond it a message of nothing but empty entries would cost a hundred times its size in objects.
 */
export const peerMessageEntriesMax: number = raftMessageBytesMax / 4;
/**
 * First memory for an entry or a message that does not lie whole in a chunk, or its own size if that is less; it doubles as bytes arrive.
 * Of --max-request-bytes' default the largest is smaller, so that none is copied from one new memory to the next; and all that a length
 * alone costs is so much a stream.
 */
export const peerAssemblyBytes: number = 2 * 1024 * 1024;

/**
 * Terms and indexes of a peer's message: far beyond what a cluster comes to (an entry a microsecond for 142 years), and as far below what a
 * number holds exactly. Beyond 2^53 a member could not write the next term, nor read what it wrote, and nobody would ever lead again.
 */
export const raftPositionMax: number = 2 ** 52;
/**
 * A term that is so many elections ahead of this member's is no term of its cluster: a member that campaigns alone without a pause, once in
 * 1.5 s, takes 290 days. One message could otherwise bring the terms of all to where they end; this many at a time it takes 2^28 messages.
 * A member that has no term yet takes any: it joins a cluster of whatever age.
 */
export const raftTermStepMax: number = 2 ** 24;
/** Lines about messages and proposals of peers that are refused: one in so long, which says how many there were. */
export const peerRefusalLogPauseMs = 1000;

// --- elections ---

/** How long after its start a member looks for peers that are there, to shorten its first election: etcd's connection timeout. */
export const peerLookMs = 5000;
/** Of the first election timeout that many ticks are left for a leader to be heard. */
export const ticksKeptAtStart = 2;

/** Entries of the log in memory that are not applied yet: what a follower may hold while its state is being replaced, or while its disk
 * is slower than the leader's. Beyond it appends are not taken; the leader sends them again. */
export const unappliedBytesMax: number = 256 * 1024 * 1024;
/** Leases, or keys with one, that are taken from a new state in one turn: 20 ms where each takes 5 us. */
export const restoredLeasesPerTurn = 4000;
/** Followers' proposals that wait while leadership goes from one member to another: what a few milliseconds bring. */
export const heldProposalBytesMax: number = 16 * 1024 * 1024;
/** How long a leader that ends waits for another to take over: a round trip or two, and what its follower lacks. */
export const handOverMs = 500;

// --- leases ---

/** A leader that was not ticked for that many ticks asks whether it is one still before it renews or revokes, as etcd's. */
export const leaderCheckTicks = 3;
/** How long a request about a lease waits until what is committed is applied (etcd's applyTimeout). */
export const leaseApplyWaitMs = 1000;
/** Between two tries to reach the leader for a renewal, at least, as in etcd; the next raft tick behind it makes the try. */
export const leaseForwardPauseMs = 50;
/** The leader's answer about a lease may carry all its keys (etcd's maxLeaseHTTPResponseSize). */
export const leaseAnswerBytesMax: number = 100 * 1024 * 1024;

// --- membership ---

/** Changes of the membership, and promotions, that wait in one member: each is a call that its client waits for; people make few. */
export const membershipChangesMax = 1024;
/** Connected for that long counts as healthy when a change is to leave a quorum (etcd's HealthInterval). */
export const connectedMs = 5000;
/** A learner may vote when it has that share of the leader's log (etcd's readyPercentThreshold). */
export const learnerReadyShare = 0.9;
/** How long a promotion waits for what is committed to be applied (etcd's applyTimeout). */
export const appliedWaitMs = 1000;
/** A removed member stays that long, so that its last messages go out (etcd stops with this delay); or longer, see server/removal.ts. */
export const removedStayMs = 1000;

// --- the loop ---

/**
 * A turn whose entries are so many bytes does not wait for the disk, nor do those behind it until it is durable: what syncs for milliseconds
 * would hold up heartbeats and small requests.
 */
export const overlapBytesMin: number = 256 * 1024;

// --- reads ---

/** A ReadIndex round that is not confirmed by then is asked anew, in a new round (etcd's readIndexRetryTime). */
export const readRoundRetryMs = 500;

// --- starting ---

/** How long a start waits in all for peers' names to resolve, and how often it asks: etcd's, a pod's name needs some seconds. */
export const peerNamesWaitMs = 30_000;
export const peerNamesRetryMs = 1000;
/** A member that shall be new asks the others whether it is, as etcd: those that start with it do not answer yet. */
export const bootstrapAskMs = 1000;
/** A member that joins asks who is there: etcd's ten seconds. */
export const clusterInfoTimeoutMs = 10_000;
/** Between two attempts at a discovery service: doubled each time, eight times at most, as etcd. */
export const discoveryBackoffMs = 1000;
export const discoveryBackoffsMax = 8;
/** --force-new-cluster writes some hundred bytes before the member begins; a disk that takes longer is not there. */
export const forcedChangesWaitMs = 60_000;

// --- versions ---

/** How often versions are looked at (etcd's monitorVersionInterval): a second less than its connections' write timeout. */
export const versionLookMs = 4000;

// --- snapshots ---

/** Snapshots sent to members at once: each has a thread and pins the database's pages. etcd queues 16; a leader of five members that two
 * others have to be filled from goes on with the third when one is done, as raft asks again. */
export const snapshotSendsMax = 2;
/** After a snapshot was sent its entries stay in memory for so long, so that the member catches up from there (etcd's delay). */
export const snapshotLogHeldMs = 30_000;
/** ... but no more entries than this. The member gets another snapshot then. */
export const snapshotLogHeldEntriesMax = 500_000;
/** Nor does the log in memory hold more bytes than this, whoever lags, and it is cut to logBytesKept then. Entries of 2 KB that are held for
 * nobody take 30 MB. */
export const logBytesMax: number = 512 * 1024 * 1024;
export const logBytesKept: number = 384 * 1024 * 1024;
/** Bytes of a received database on their way to the disk; beyond it the sender waits. */
export const streamFileBufferBytes: number = 4 * 1024 * 1024;
/** They are synced after so many: the log's own syncs wait for no more than these. */
export const streamFileSyncBytes: number = 16 * 1024 * 1024;
/** The disk is asked for its free space whenever so much has come. */
export const snapshotSpaceCheckBytes: number = 64 * 1024 * 1024;
/** Disk space that a snapshot leaves beside its file and the database that is made of it: two segments of the log. */
export const snapshotSpareBytes: number = 128 * 1024 * 1024;

// --- relations ---
assert(2 * raftInFlightBytesMax <= peerUnsentBytesMax, 'what raft has under way to a peer is not dropped on the way');
assert(
  lmdbReadersOfServer + 4 * snapshotSendsMax <= lmdbReadersMax,
  'LMDB has readers for the snapshots that are sent',
);
assert(peerConnectionsReserved + monitorConnectionsReserved < descriptorsReserved, 'connections leave room for files');
assert(peerBodyBytesMax < peerAnswerBytesMax, 'requests to peers are small');
assert(raftMessageBytesMax < peerMessageBytesMax, 'what raft sends is taken');
assert(peerMessageBytesMax <= peerUnfinishedBytesMax, 'the largest message alone has room');
