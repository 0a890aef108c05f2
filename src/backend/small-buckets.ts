// etcd's small buckets as the core sees them: the changes that are not in the tables yet over the tables. The `key` bucket is
// not one of them: its rows are in row-log.ts.

import { assert } from '../base/assert.ts';
import type { ReadEnvironment, ReadTable, ScanVisitor } from '../io/table.ts';
import { BUCKET_NAMES, type BucketName } from '../snapshot/schema.ts';
import { BucketOverlay } from './bucket-overlay.ts';
import type { RowLog } from './row-log.ts';

/** A bucket's place in the list is its number in the row log. */
const bucketNumbers: ReadonlyMap<string, number> = new Map(BUCKET_NAMES.map((name, i) => [name, i]));

function bucketNumber(bucket: BucketName): number {
  const number = bucketNumbers.get(bucket);
  assert(number !== undefined && bucket !== 'key', 'backend: no such small bucket');
  return number;
}

export class SmallBuckets {
  private readonly rows: RowLog;
  private readonly overlay = new BucketOverlay(BUCKET_NAMES.length);
  private readonly tables: readonly ReadTable[];

  constructor(reader: ReadEnvironment, rows: RowLog) {
    this.rows = rows;
    this.tables = BUCKET_NAMES.map((name) => reader.table(name));
  }

  put(bucket: BucketName, key: Buffer, value: Buffer): void {
    const number = bucketNumber(bucket);
    this.rows.appendBucketPut(number, key, value);
    this.overlay.set(number, key, value, this.rows.position);
  }

  remove(bucket: BucketName, key: Buffer): void {
    const number = bucketNumber(bucket);
    this.rows.appendBucketDelete(number, key);
    this.overlay.set(number, key, null, this.rows.position);
  }

  get(bucket: BucketName, key: Buffer): Buffer | undefined {
    const number = bucketNumber(bucket);
    const changed = this.overlay.get(number, key);
    if (changed !== undefined) return changed ?? undefined;
    return this.tables[number]!.get(key);
  }

  scan(bucket: BucketName, start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor): void {
    const number = bucketNumber(bucket);
    const changes = this.overlay.range(number, start, end);
    let next = 0;
    let stopped = false;
    this.tables[number]!.scan(start, end, (key, value) => {
      for (; next < changes.length; next++) {
        const change = changes[next]!;
        const order = change.key.compare(key);
        if (order > 0) break;
        if (change.value !== null && !visit(change.key, change.value)) {
          stopped = true;
          return false;
        }
        if (order === 0) {
          next++;
          return true;
        }
      }
      stopped = !visit(key, value);
      return !stopped;
    });
    for (; !stopped && next < changes.length; next++) {
      const change = changes[next]!;
      if (change.value !== null) stopped = !visit(change.key, change.value);
    }
  }

  /** The tables show everything before `position`. */
  drop(position: number): void {
    this.overlay.drop(position);
  }

  get hasChanges(): boolean {
    return !this.overlay.isEmpty;
  }

  checkInvariants(): void {
    this.overlay.checkInvariants();
  }
}
