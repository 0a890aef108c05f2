// The live keys of a range as they stand, one after the other, while the caller deletes them: read some at a time, as copies, so that
// a delete of millions holds a thousand. What was deleted lies behind the place where the reading goes on.

import { ByteWriter } from '../base/byte-writer.ts';
import { liveKeysRead } from '../limits.ts';
import type { KeyIndexView, KeyState } from './storage.ts';
import { newKeyState } from './storage.ts';

const EMPTY = Buffer.alloc(0);

export class LiveKeys {
  /** The key that next() moved to is `buffer[start, end)`, until the next call. */
  buffer: Buffer = EMPTY;
  start = 0;
  end = 0;
  private readonly index: KeyIndexView;
  private readonly bytes = new ByteWriter(4096);
  private ends: number[] = [];
  private at = 0;
  private rangeEnd: Buffer | null = null;
  /** Where the reading goes on; null: the range is read. */
  private resumeKey: Buffer | null = null;
  private readonly state: KeyState = newKeyState();

  constructor(index: KeyIndexView) {
    this.index = index;
  }

  /** Begins with a range, `end` null: to the last key; answers how many keys it has. */
  open(start: Buffer, end: Buffer | null): number {
    this.rangeEnd = end;
    this.read(start);
    return this.resumeKey === null ? this.ends.length : this.index.count(start, end, Infinity);
  }

  /** Begins with one key; answers 1 if it is live, else 0. */
  openKey(buffer: Buffer, start: number, end: number): number {
    this.reset();
    if (!this.index.get(buffer, start, end, this.state)) return 0;
    this.add(buffer, start, end);
    return 1;
  }

  next(): boolean {
    if (this.at === this.ends.length) {
      if (this.resumeKey === null) return false;
      this.read(this.resumeKey);
      if (this.ends.length === 0) return false;
    }
    this.buffer = this.bytes.bytes;
    this.start = this.at === 0 ? 0 : this.ends[this.at - 1]!;
    this.end = this.ends[this.at++]!;
    return true;
  }

  private read(from: Buffer): void {
    this.reset();
    this.index.scan(from, this.rangeEnd, Infinity, this.visit);
  }

  private readonly visit = (key: Buffer, start: number, end: number): boolean => {
    if (this.ends.length >= liveKeysRead || this.bytes.length >= liveKeysRead * 1024) {
      this.resumeKey = Buffer.from(key.subarray(start, end));
      return false;
    }
    this.add(key, start, end);
    return true;
  };

  private add(key: Buffer, start: number, end: number): void {
    this.bytes.copy(key, start, end);
    this.ends.push(this.bytes.length);
  }

  private reset(): void {
    this.resumeKey = null;
    this.bytes.reset();
    this.ends.length = 0;
    this.at = 0;
  }
}
