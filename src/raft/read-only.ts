// Reads that wait until a majority confirms that the leader still leads (Raft thesis 6.4, ReadIndex). Every read gets
// the next position; a heartbeat carries the newest position in its context, so that one round confirms all reads
// before it.
//
//   context of a heartbeat, 8 bytes:  0  uint64 little-endian  position   (as etcd-io/raft 3.7; followers echo it)

import { raftReadsPendingMax } from '../limits.ts';
import { type Message, NO_BYTES, type NodeId } from './types.ts';

export interface PendingRead {
  readonly request: Message;
  /** The commit index when the read came: the state to read is this one or later. */
  readonly index: number;
}

export class ReadOnly {
  readonly acks: Map<NodeId, number> = new Map();
  #pending: PendingRead[] = [];
  /** The position of the newest read that is confirmed; pending[i] has position confirmed + 1 + i. */
  #confirmed = 0;

  /** A new term: reads of the old one are not answered. Their callers ask again. */
  reset(): void {
    this.acks.clear();
    this.#pending = [];
    this.#confirmed = 0;
  }

  /** False when too many wait. The leader acknowledges its own position. */
  add(request: Message, index: number, self: NodeId): boolean {
    if (this.#pending.length >= raftReadsPendingMax) return false;
    this.#pending.push({ request, index });
    this.acks.set(self, this.#position);
    return true;
  }

  get #position(): number {
    return this.#confirmed + this.#pending.length;
  }

  /** Empty when no read waits. */
  heartbeatContext(): Buffer {
    if (this.#pending.length === 0) return NO_BYTES;
    const context = Buffer.alloc(8);
    context.writeUInt32LE(this.#position % 2 ** 32, 0);
    context.writeUInt32LE(Math.floor(this.#position / 2 ** 32), 4);
    return context;
  }

  /** A heartbeat with this context was answered. A foreign length is no position of ours. */
  acknowledge(from: NodeId, context: Buffer): void {
    if (context.length !== 8) return;
    const position = context.readUInt32LE(0) + context.readUInt32LE(4) * 2 ** 32;
    // A member can't confirm what was not asked: a broken one must not advance reads of the future.
    if (position > this.#position) return;
    this.acks.set(from, Math.max(this.acks.get(from) ?? 0, position));
  }

  /** The reads up to `position` are confirmed by a majority. */
  take(position: number): PendingRead[] {
    const count = Math.min(position - this.#confirmed, this.#pending.length);
    if (count <= 0) return [];
    this.#confirmed += count;
    return this.#pending.splice(0, count);
  }

  get count(): number {
    return this.#pending.length;
  }
}
