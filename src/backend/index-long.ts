// Keys too long for a table's key: those that share their first escaped bytes (index-key.ts) form a group, whose order is
// kept by ordinals that leave gaps. The value of such an entry begins with a flags byte (1), the key's length and the key.
//
// A key is found by halving the space of ordinals, at most 48 steps whatever the size of the group; a new key gets an
// ordinal between its neighbours; when there is none left, the group is numbered anew. That reads the whole group into
// memory: a group is bounded by the quota only, and needs 2^24 inserts in a row at one place to come to it.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import type { ReadTable, WriteTable } from '../io/table.ts';
import { ByteReader, EntryFlag } from './index-entry.ts';
import { compareBytes, ORDINAL_BYTES, type TableKey } from './index-key.ts';

const ORDINALS = 2 ** (8 * ORDINAL_BYTES);
/** Gap at either end of a group; in between a new ordinal halves the gap. */
const STEP = 2 ** 24;

/** Finds a long key in its group. `tableKey` must have been set to the key. */
export class LongKeyFinder {
  found = false;
  /** Of the key when found, else of the first key after it (2^48 when it is the last). */
  ordinal: number = ORDINALS;
  private key: Uint8Array = Buffer.alloc(0);
  private start = 0;
  private end = 0;
  private probeOrdinal = -1;
  private probeOrder = 0;
  private readonly reader: ByteReader = new ByteReader();
  private readonly visit = (tableKey: Buffer, value: Buffer): boolean => {
    this.probeOrdinal = tableKey.readUIntBE(tableKey.length - ORDINAL_BYTES, ORDINAL_BYTES);
    assertSound(((value[0] ?? 0) & EntryFlag.long) !== 0, 'a long key without its bytes');
    this.reader.buffer = value;
    this.reader.at = 1;
    this.reader.end = value.length;
    const length = this.reader.varint();
    const at = this.reader.at;
    assertSound(at + length <= value.length, 'a long key is cut');
    this.probeOrder = compareBytes(value, at, at + length, this.key, this.start, this.end);
    return false;
  };

  find(table: ReadTable, tableKey: TableKey, key: Uint8Array, start: number, end: number): void {
    this.key = key;
    this.start = start;
    this.end = end;
    this.found = false;
    this.ordinal = ORDINALS;
    let low = 0;
    let high = ORDINALS;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      this.probe(table, tableKey, middle, high, false);
      if (this.probeOrdinal === -1) {
        high = middle;
      } else if (this.probeOrder < 0) {
        low = this.probeOrdinal + 1;
      } else {
        this.ordinal = this.probeOrdinal;
        if (this.probeOrder === 0) {
          this.found = true;
          return;
        }
        high = middle;
      }
    }
  }

  /** Table key of the first entry at or after the key, or of the group's end: a bound for scans and counts. A copy. */
  bound(table: ReadTable, tableKey: TableKey, key: Uint8Array, start: number, end: number): Buffer {
    this.find(table, tableKey, key, start, end);
    return ordinalKey(tableKey, this.ordinal);
  }

  /** The table key for a key that find() did not find, in the same table. */
  insertKey(table: WriteTable, tableKey: TableKey, key: Uint8Array, start: number, end: number): Buffer {
    this.find(table, tableKey, key, start, end);
    assert(!this.found, 'long key is there already');
    let ordinal = this.ordinalBefore(table, tableKey);
    if (ordinal === -1) {
      renumber(table, tableKey);
      this.find(table, tableKey, key, start, end);
      ordinal = this.ordinalBefore(table, tableKey);
      assert(ordinal !== -1, 'group of long keys is full');
    }
    return tableKey.withOrdinal(ordinal);
  }

  /** A free ordinal between the key at `this.ordinal` and the one before it, or -1. */
  private ordinalBefore(table: ReadTable, tableKey: TableKey): number {
    const next = this.ordinal;
    this.probe(table, tableKey, 0, next, true);
    const previous = this.probeOrdinal;
    if (previous === -1 && next === ORDINALS) return ORDINALS / 2;
    const last = next - 1;
    if (next === ORDINALS) return previous + STEP <= last ? previous + STEP : previous < last ? previous + 1 : -1;
    if (previous === -1) return next >= STEP ? next - STEP : next > 0 ? next - 1 : -1;
    return last > previous ? Math.floor((previous + next) / 2) : -1;
  }

  /** The first (or last) entry with from <= ordinal < to: sets probeOrdinal, -1 when there is none. */
  private probe(table: ReadTable, tableKey: TableKey, from: number, to: number, last: boolean): void {
    this.probeOrdinal = -1;
    table.scan(ordinalKey(tableKey, from), ordinalKey(tableKey, to), this.visit, last);
  }
}

function ordinalKey(tableKey: TableKey, ordinal: number): Buffer {
  return ordinal === ORDINALS ? tableKey.groupEnd() : Buffer.from(tableKey.withOrdinal(ordinal));
}

function renumber(table: WriteTable, tableKey: TableKey): void {
  const keys: Buffer[] = [];
  const values: Buffer[] = [];
  table.scan(ordinalKey(tableKey, 0), ordinalKey(tableKey, ORDINALS), (key, value) => {
    keys.push(Buffer.from(key));
    values.push(Buffer.from(value));
    return true;
  });
  for (const key of keys) table.remove(key);
  const step = Math.floor(ORDINALS / (values.length + 1));
  for (let i = 0; i < values.length; i++) table.put(tableKey.withOrdinal((i + 1) * step), values[i]!);
}
