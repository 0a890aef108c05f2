// The open streams of a connection by id, and what became of the ones closed lately. Ids are odd and ascending, so the low
// bits address an array directly; a stream that lives so long that a newer one needs its slot moves to a map.
//
// Worked example (8 slots): stream 1 (a watch) sits in slot 0; stream 17 comes, slot 0 is taken: 17 goes to the map.

import { assert } from '../base/assert.ts';
import type { Http2Stream } from './stream.ts';

const slotCount = 128;

/** How a stream closed: decides the answer to frames that still come for it. */
export const ClosedBy = { unknown: 0, end: 1, peerReset: 2, ourReset: 3 } as const;
export type ClosedBy = (typeof ClosedBy)[keyof typeof ClosedBy];

export class StreamTable {
  private readonly slots: (Http2Stream | null)[] = new Array<Http2Stream | null>(slotCount).fill(null);
  private readonly overflow: Map<number, Http2Stream> = new Map();
  // Direct mapped too: the newest stream of each slot that closed, and how.
  private readonly closedIds: Uint32Array = new Uint32Array(slotCount);
  private readonly closedBy: Uint8Array = new Uint8Array(slotCount);
  count = 0;

  get(id: number): Http2Stream | null {
    const stream = this.slots[(id >>> 1) & (slotCount - 1)]!;
    if (stream !== null && stream.id === id) return stream;
    return this.overflow.size === 0 ? null : (this.overflow.get(id) ?? null);
  }

  add(stream: Http2Stream): void {
    const slot = (stream.id >>> 1) & (slotCount - 1);
    if (this.slots[slot] === null) this.slots[slot] = stream;
    else this.overflow.set(stream.id, stream);
    this.count += 1;
  }

  remove(stream: Http2Stream, closedBy: ClosedBy): void {
    const slot = (stream.id >>> 1) & (slotCount - 1);
    if (this.slots[slot] === stream) this.slots[slot] = null;
    else assert(this.overflow.delete(stream.id), 'only a registered stream is removed');
    this.count -= 1;
    this.remember(stream.id, closedBy);
  }

  /** Also for streams that were refused before they were registered. */
  remember(id: number, closedBy: ClosedBy): void {
    const slot = (id >>> 1) & (slotCount - 1);
    this.closedIds[slot] = id;
    this.closedBy[slot] = closedBy;
  }

  /** How a stream that is not open closed: `unknown` when it was never opened or it is too long ago. */
  fate(id: number): ClosedBy {
    const slot = (id >>> 1) & (slotCount - 1);
    return this.closedIds[slot] === id ? (this.closedBy[slot] as ClosedBy) : ClosedBy.unknown;
  }

  /** All open streams, in a list of its own: they may close while it is walked. */
  list(): Http2Stream[] {
    const streams: Http2Stream[] = [];
    for (const stream of this.slots) if (stream !== null) streams.push(stream);
    for (const stream of this.overflow.values()) streams.push(stream);
    return streams;
  }
}
