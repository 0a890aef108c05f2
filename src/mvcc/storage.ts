// What the multi-version store needs of the storage engine (src/backend), as an interface: so that the store and the watches
// can be tested over a small model, and the engine can change beneath them. See src/backend for the meaning of each.

/** What the key index knows of a key's newest change; a reusable out-object. The lease as u32 halves of its int64. */
export interface KeyState {
  main: number;
  sub: number;
  createMain: number;
  version: number;
  leaseHi: number;
  leaseLo: number;
  tombstone: boolean;
  /** Row ordinal, or -1 when the row is in the tables. */
  ordinal: number;
}

/** The bytes of a row: a view that lives until the next read. */
export interface RowRef {
  buffer: Buffer;
  start: number;
  end: number;
}

export type KeyVisitor = (key: Buffer, keyStart: number, keyEnd: number, state: KeyState) => boolean;
export type RowVisitor = (
  main: number,
  sub: number,
  tombstone: boolean,
  buffer: Buffer,
  start: number,
  end: number,
) => boolean;

export interface KeyIndexView {
  get(key: Buffer, start: number, end: number, out: KeyState): boolean;
  getAt(key: Buffer, start: number, end: number, atRevision: number, out: KeyState): boolean;
  record(key: Buffer, start: number, end: number, state: KeyState): void;
  scan(start: Buffer, end: Buffer | null, atRevision: number, visit: KeyVisitor): void;
  count(start: Buffer, end: Buffer | null, atRevision: number): number;
  /** As of this revision and newer ones count() costs no scan. */
  readonly countFloor: number;
  liveKeyCount(): number;
}

export interface Storage {
  readonly index: KeyIndexView;
  readonly rowBuffer: Buffer;
  readonly rowOffset: number;
  appendRow(
    main: number,
    sub: number,
    tombstone: boolean,
    byteCount: number,
    supersededMain: number,
    supersededSub: number,
  ): number;
  readRow(main: number, sub: number, ordinal: number, out: RowRef): boolean;
  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void;
  /** Until unpin() a compaction deletes nothing that a read as of `revision` needs. */
  pin(revision: number): void;
  unpin(revision: number): void;
}

export function newKeyState(): KeyState {
  return { main: 0, sub: 0, createMain: 0, version: 0, leaseHi: 0, leaseLo: 0, tombstone: false, ordinal: -1 };
}
