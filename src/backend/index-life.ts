// The latest creates and deletes of keys, for counts at older revisions: the count now, less what was created since, plus
// what was deleted since. Core memory only, bounded; at a revision older than `floor` it has no answer and the caller scans.

import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { compareBytes } from './index-key.ts';

const CHUNK_EVENTS = 4096;

interface Chunk {
  count: number;
  readonly mains: Float64Array;
  /** 1 created, -1 deleted. */
  readonly signs: Int8Array;
  /** Where each key ends in `bytes`; it begins where the one before ends. */
  readonly ends: Uint32Array;
  readonly bytes: Buffer;
}

export class LifeLog {
  /** All creates and deletes with main > floor are here. */
  floor: number;
  private readonly limits: IndexLimits;
  private chunks: Chunk[] = [];
  private bytes = 0;

  constructor(floor: number, limits: IndexLimits = indexLimits) {
    this.floor = floor;
    this.limits = limits;
  }

  append(main: number, created: boolean, key: Uint8Array, start: number, end: number): void {
    let chunk = this.chunks[this.chunks.length - 1];
    const used = chunk === undefined || chunk.count === 0 ? 0 : chunk.ends[chunk.count - 1]!;
    let from = used;
    if (chunk === undefined || chunk.count === chunk.mains.length || used + end - start > chunk.bytes.length) {
      chunk = this.addChunk(end - start);
      from = 0;
    }
    const at = chunk.count++;
    chunk.mains[at] = main;
    chunk.signs[at] = created ? 1 : -1;
    chunk.ends[at] = from + end - start;
    for (let i = start; i < end; i++) chunk.bytes[from + i - start] = key[i]!;
  }

  private addChunk(keyBytes: number): Chunk {
    // At least four chunks within either bound, so that dropping one keeps most of the log.
    const events = Math.max(1, Math.min(CHUNK_EVENTS, this.limits.lifeEvents >>> 2));
    const capacity = Math.max(keyBytes, Math.min(CHUNK_EVENTS * 64, this.limits.lifeBytes >>> 2));
    while (this.chunks.length * events >= this.limits.lifeEvents || this.bytes + capacity > this.limits.lifeBytes) {
      const dropped = this.chunks.shift();
      if (dropped === undefined) break;
      this.bytes -= dropped.bytes.length;
      this.floor = Math.max(this.floor, dropped.mains[dropped.count - 1]!);
    }
    const chunk = {
      count: 0,
      mains: new Float64Array(events),
      signs: new Int8Array(events),
      ends: new Uint32Array(events),
      bytes: Buffer.alloc(capacity),
    };
    this.chunks.push(chunk);
    this.bytes += capacity;
    return chunk;
  }

  /** Creates less deletes in [start, end) (null: to the last key) with main > atRev, which is not below the floor. */
  sumSince(atRev: number, start: Buffer, end: Buffer | null): number {
    let sum = 0;
    for (let c = this.chunks.length - 1; c >= 0; c--) {
      const chunk = this.chunks[c]!;
      for (let i = chunk.count - 1; i >= 0; i--) {
        if (chunk.mains[i]! <= atRev) return sum;
        const from = i === 0 ? 0 : chunk.ends[i - 1]!;
        const to = chunk.ends[i]!;
        if (compareBytes(chunk.bytes, from, to, start, 0, start.length) < 0) continue;
        if (end !== null && compareBytes(chunk.bytes, from, to, end, 0, end.length) >= 0) continue;
        sum += chunk.signs[i]!;
      }
    }
    return sum;
  }
}
