// The changes of small buckets that the tables do not show yet, in the order in which they were made: the core's reads look
// here first. Not for rows of the `key` bucket (row-log.ts). A change leaves when the tables show it, so the size is bounded
// by the backlog of the row log.

import { assert } from '../base/assert.ts';

interface Change {
  /** null: deleted. */
  readonly value: Buffer | null;
  /** Position in the row log after it. */
  readonly position: number;
}

export interface OverlayEntry {
  readonly key: Buffer;
  readonly value: Buffer | null;
}

export class BucketOverlay {
  /** By bucket number; each map in the order of the changes, its keys as latin1 text of the bytes. */
  private readonly buckets: Map<string, Change>[] = [];

  constructor(bucketCount: number) {
    for (let i = 0; i < bucketCount; i++) this.buckets.push(new Map());
  }

  /** Keeps the value's bytes: copies them. */
  set(bucket: number, key: Buffer, value: Buffer | null, position: number): void {
    const name = key.toString('latin1');
    const changes = this.buckets[bucket]!;
    // Removed first, so that the map stays in the order of positions.
    changes.delete(name);
    changes.set(name, { value: value === null ? null : Buffer.from(value), position });
  }

  /** undefined: unchanged, see the table. null: deleted. */
  get(bucket: number, key: Buffer): Buffer | null | undefined {
    const changes = this.buckets[bucket]!;
    if (changes.size === 0) return undefined;
    return changes.get(key.toString('latin1'))?.value;
  }

  /** The changes inside [start, end), ascending by key. */
  range(bucket: number, start: Buffer | undefined, end: Buffer | undefined): OverlayEntry[] {
    const found: OverlayEntry[] = [];
    for (const [name, change] of this.buckets[bucket]!) {
      const key = Buffer.from(name, 'latin1');
      if (start !== undefined && key.compare(start) < 0) continue;
      if (end !== undefined && key.compare(end) >= 0) continue;
      found.push({ key, value: change.value });
    }
    return found.sort((a, b) => a.key.compare(b.key));
  }

  /** The tables show everything before `position`. */
  drop(position: number): void {
    for (const changes of this.buckets) {
      for (const [name, change] of changes) {
        if (change.position > position) break;
        changes.delete(name);
      }
    }
  }

  get isEmpty(): boolean {
    return this.buckets.every((changes) => changes.size === 0);
  }

  checkInvariants(): void {
    for (const changes of this.buckets) {
      let last = 0;
      for (const change of changes.values()) {
        assert(change.position >= last, 'bucket overlay out of order');
        last = change.position;
      }
    }
  }
}
