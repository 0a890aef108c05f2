// Rows as the core reads them: in memory as long as the tables do not show them (row-log.ts), then in the tables, some of them looked up
// ahead (row-ahead.ts). Which revision a key has is the index's.

import { assertSound } from '../base/fatal.ts';
import type { EntryVisitor, ReadTable } from '../io/table.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import {
  encodeRevisionKey,
  REVISION_KEY_BYTES,
  revisionMain,
  revisionSub,
  TOMBSTONE_KEY_BYTES,
  writeRevisionKey,
} from '../snapshot/schema.ts';
import type { RowAhead } from './row-ahead.ts';
import type { RowLog, RowRef, RowVisitor } from './row-log.ts';

export class RowReads {
  private readonly rows: RowLog;
  private readonly keyTable: ReadTable;
  private readonly rowAhead: RowAhead;
  private readonly key = Buffer.alloc(REVISION_KEY_BYTES);
  private readonly view: KeyValueView = new KeyValueView();

  constructor(rows: RowLog, keyTable: ReadTable, rowAhead: RowAhead) {
    this.rows = rows;
    this.keyTable = keyTable;
    this.rowAhead = rowAhead;
  }

  /** As Backend.readRow(). Hot. */
  read(main: number, sub: number, ordinal: number, out: RowRef): boolean {
    if (ordinal >= 0 && this.rows.read(main, sub, ordinal, out)) return true;
    if (!this.rowAhead.take(main, sub, out)) {
      writeRevisionKey(this.key, 0, main, sub, false);
      if (!this.keyTable.find(this.key, out)) return this.rows.find(main, sub, out);
    }
    // It goes to clients as it is: a damaged one shall not.
    const { view } = this;
    const isRow = view.parse(out.buffer, out.start, out.end) && view.modRevision === main;
    assertSound(isRow, `row ${main} is not its KeyValue`);
    return true;
  }

  /** As Backend.scanRows(); there are none above `toMain`. */
  scan(fromMain: number, toMain: number, visit: RowVisitor): void {
    // What is in memory may be in the tables too. A revision is of one apply, so it is in memory whole or not at all.
    const memoryMain = this.rows.firstMain();
    const tableMain = Math.min(toMain, memoryMain - 1);
    if (fromMain <= tableMain && !this.scanTable(fromMain, tableMain, visit)) return;
    if (toMain >= memoryMain) this.rows.scan(Math.max(fromMain, memoryMain), toMain, visit);
  }

  /** False when `visit` stopped. */
  private scanTable(fromMain: number, toMain: number, visit: RowVisitor): boolean {
    let goOn = true;
    const visitEntry: EntryVisitor = (key, keyStart, keyEnd, value, start, end) => {
      assertSound(keyEnd - keyStart >= REVISION_KEY_BYTES, 'a row without a revision');
      const isTombstone = keyEnd - keyStart === TOMBSTONE_KEY_BYTES;
      goOn = visit(revisionMain(key, keyStart), revisionSub(key, keyStart), isTombstone, value, start, end);
      return goOn;
    };
    this.keyTable.walk(encodeRevisionKey(fromMain, 0), encodeRevisionKey(toMain + 1, 0), visitEntry);
    return goOn;
  }
}
