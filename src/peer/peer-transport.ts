// What the member knows of the way to its peers: the interface that peer/http-transport.ts implements over etcd's peer protocol and
// testing/ over a simulated network. Nothing here waits: what cannot be sent is dropped and reported, as raft expects.

import type { Message, NodeId } from '../raft/types.ts';

export type { PeerAnswer, PeerRequest, PeerRequests } from '../io/peer-request.ts';

/** Where the bytes of a snapshot's database come from. The transport pulls: it calls resume() once it may write. */
export interface SnapshotBody {
  /** Length of the bbolt file, known before the first byte. */
  readonly fileBytes: number;
  /** Starts, or goes on after `chunk` returned false. */
  resume(): void;
  /** The transfer failed or is not wanted any more; nothing more is delivered. */
  cancel(): void;
  /** Set by the transport before resume(). `chunk` returns false when it wants a pause; `done` is called once. */
  sink: { chunk(bytes: Buffer): boolean; done(error: Error | null): void } | null;
}

/** Where the database of a snapshot that a peer sends goes. Made by PeerEvents.snapshotArrives. */
export interface SnapshotReceipt {
  /** False: wait for `drained`. */
  write(bytes: Buffer): boolean;
  /** Set by the transport. */
  drained: (() => void) | null;
  /** All bytes were written. `done(null)` when they are durable: the transport then hands the message on and answers. */
  end(done: (error: Error | null) => void): void;
  /** The transfer broke off. */
  abort(): void;
}

/** What the transport tells the member. Called in the turn in which the bytes came, never inside of a call of the transport. */
export interface PeerEvents {
  /** A message for raft of this member, from one that was not removed. Buffers in it stay as they are. */
  message(message: Message): void;
  /** Raft hears that what it sent may not have arrived. */
  unreachable(id: NodeId): void;
  /** The end of sendSnapshot(). */
  snapshotSent(id: NodeId, succeeded: boolean): void;
  /** A database of `message.snapshot` begins to arrive. Null: refused (one is arriving already, or there is no place for it). */
  snapshotArrives(message: Message): SnapshotReceipt | null;
  /** Whether this member was removed from the cluster for good: its requests are answered 410. */
  isRemoved(id: NodeId): boolean;
  /** The peer `by` says that this member was removed (410 to a stream, 403 to a post), in etcd's words. */
  refused(reason: string, by: NodeId): void;
}

export interface PeerTransport {
  /** Takes the messages of a turn; MsgSnap is not among them. Messages to unknown ids are dropped. Hot. */
  send(messages: readonly Message[]): void;
  /** Ends the turn: what send() was given goes out. */
  flush(): void;
  /** Sends `message` (MsgSnap) and behind it the database. */
  sendSnapshot(message: Message, body: SnapshotBody): void;
  addPeer(id: NodeId, urls: readonly string[]): void;
  updatePeer(id: NodeId, urls: readonly string[]): void;
  removePeer(id: NodeId): void;
  /** Monotonic ms since when messages get through to `id`; null: they don't. */
  activeSinceMs(id: NodeId): number | null;
  stop(): void;
}
