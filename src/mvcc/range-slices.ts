// One slice of a range: the next keys as of a revision, as KeyValues into an answer or into a sorter. Not what a range means (limits,
// counts, errors: store.ts), nor what is left of one after a slice (range-read.ts). Hot: no object and no closure a slice.

import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import { assertSound } from '../base/fatal.ts';
import type { ReadSlice } from '../limits.ts';
import type { RangeRequest } from '../proto/kv-request.ts';
import { KeyValueView, keyValueLength, writeKeyValueHead } from '../proto/mvccpb.ts';
import { Reader } from '../proto/wire.ts';
import { passesFilters, rangeEndOf } from './kv-range.ts';
import type { RowSorter } from './row-sorter.ts';
import { type KeyState, newKeyState, type RowRef, type Storage } from './storage.ts';

/** What a slice has come to. */
export interface SliceEnd {
  visited: number;
  /** There are keys beyond the limit. */
  more: boolean;
  /** The slice ended before this key; null: the range ended, or the limit was reached. */
  resumeKey: Buffer | null;
}

const EMPTY = Buffer.alloc(0);

export class RangeSlices {
  /** Of the last slice; valid until the next. */
  readonly end: SliceEnd = { visited: 0, more: false, resumeKey: null };
  /** Of all slices before the last. */
  visitedBefore = 0;
  private readonly storage: Storage;
  private readonly state: KeyState = newKeyState();
  private readonly row: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly view = new KeyValueView();
  private readonly reader = new Reader();

  // Of the slice: fields instead of a closure.
  private out!: ByteWriter;
  private limit = 0;
  private keysMax = 0;
  /** Length of `out` (or of what is collected) at which the slice ends. */
  private lengthMax = 0;
  /** Where the last KeyValue's field begins in `out`. */
  private lastStart = 0;
  private keysOnly = false;
  private revision = 0;
  private request!: RangeRequest;
  private sorter!: RowSorter;

  constructor(storage: Storage) {
    this.storage = storage;
  }

  /** Nothing was visited yet. */
  reset(): SliceEnd {
    const { end } = this;
    this.visitedBefore += end.visited;
    end.visited = 0;
    end.more = false;
    end.resumeKey = null;
    return end;
  }

  /** Appends the next KeyValues of a plain range to `out`. `revision` Infinity: as of now, a running transaction included. */
  read(request: RangeRequest, revision: number, limit: number, slice: ReadSlice, out: ByteWriter): Readonly<SliceEnd> {
    this.out = out;
    this.limit = limit;
    this.lengthMax = out.length + slice.bytes;
    return this.visit(request, revision, slice.keys, this.visitPlain);
  }

  /** Gives the next KeyValues that pass the range's filters to the sorter. */
  collect(
    request: RangeRequest,
    revision: number,
    keysMax: number,
    bytesMax: number,
    sorter: RowSorter,
  ): Readonly<SliceEnd> {
    this.sorter = sorter;
    this.lengthMax = sorter.rowBytes + bytesMax;
    return this.visit(request, revision, keysMax, this.visitSorted);
  }

  /** The last key that read() appended to `out`, a copy. */
  lastKey(out: ByteWriter): Buffer {
    const { view, reader } = this;
    reader.reset(out.bytes, this.lastStart, out.length);
    assert(reader.readTag() && reader.fieldNumber === 2, 'an answer does not end with a KeyValue');
    reader.readBytes();
    assert(view.parse(out.bytes, reader.bytesStart, reader.bytesEnd), 'an answered KeyValue does not parse');
    return Buffer.from(out.bytes.subarray(view.keyStart, view.keyEnd));
  }

  private visit(request: RangeRequest, revision: number, keysMax: number, visit: KeyVisitor): SliceEnd {
    const end = this.reset();
    this.request = request;
    this.revision = revision;
    this.keysMax = keysMax;
    this.keysOnly = request.keysOnly;
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = request;
    const { index } = this.storage;
    if (rangeEndStart === rangeEndEnd) {
      const found =
        revision === Infinity
          ? index.get(buffer, keyStart, keyEnd, this.state)
          : index.getAt(buffer, keyStart, keyEnd, revision, this.state);
      if (found) visit(buffer, keyStart, keyEnd, this.state);
      return end;
    }
    index.scan(buffer.subarray(keyStart, keyEnd), rangeEndOf(buffer, rangeEndStart, rangeEndEnd), revision, visit);
    return end;
  }

  private readonly visitPlain: KeyVisitor = (key, keyStart, keyEnd, state) => {
    const { end, out } = this;
    if (end.visited >= this.limit) {
      end.more = true;
      return false;
    }
    if (end.visited >= this.keysMax || out.length >= this.lengthMax) return this.stopAt(key, keyStart, keyEnd);
    end.visited++;
    this.lastStart = out.length;
    if (this.keysOnly) this.writeKeyOnly(key, keyStart, keyEnd, state);
    else {
      this.readRow(state);
      const { row } = this;
      if (out.room(row.end - row.start)) out.bytesField(0x12, row.buffer, row.start, row.end);
    }
    return !out.full;
  };

  private readonly visitSorted: KeyVisitor = (key, keyStart, keyEnd, state) => {
    const { end, sorter, view, row } = this;
    const isOver = end.visited >= this.keysMax || sorter.rowBytes >= this.lengthMax;
    if (isOver) return this.stopAt(key, keyStart, keyEnd);
    end.visited++;
    this.readRow(state);
    assertSound(view.parse(row.buffer, row.start, row.end), 'a row is no KeyValue');
    if (passesFilters(this.request, view.modRevision, view.createRevision)) sorter.add(view, row.start, row.end);
    return true;
  };

  private stopAt(key: Buffer, keyStart: number, keyEnd: number): boolean {
    this.end.resumeKey = Buffer.from(key.subarray(keyStart, keyEnd));
    return false;
  }

  private readRow(state: KeyState): void {
    const found = this.storage.readRow(state.main, state.sub, state.ordinal, this.row);
    assertSound(found, 'a revision of the key index has no row');
  }

  /** A keys_only answer comes from the index: no value and, as in etcd 3.7, no lease. */
  private writeKeyOnly(key: Buffer, keyStart: number, keyEnd: number, state: KeyState): void {
    if (this.revision === Infinity) {
      this.writeKeyHead(key, keyStart, keyEnd, state.createMain, state.main, state.version);
      return;
    }
    this.readRow(state);
    const { view, row } = this;
    assertSound(view.parse(row.buffer, row.start, row.end), 'a row is no KeyValue');
    this.writeKeyHead(view.buffer, view.keyStart, view.keyEnd, view.createRevision, view.modRevision, view.version);
  }

  private writeKeyHead(
    key: Buffer,
    keyStart: number,
    keyEnd: number,
    createMain: number,
    main: number,
    version: number,
  ): void {
    const length = keyValueLength(keyEnd - keyStart, createMain, main, version, 0, 0, 0);
    const { out } = this;
    if (!out.room(length)) return;
    out.byte(0x12);
    out.varint(length);
    out.reserve(length);
    out.length = writeKeyValueHead(out.bytes, out.length, key, keyStart, keyEnd, createMain, main, version);
  }
}

type KeyVisitor = (key: Buffer, keyStart: number, keyEnd: number, state: KeyState) => boolean;
