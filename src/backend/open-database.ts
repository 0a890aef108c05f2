// All that stands on one database that is open: its tables and thread, and what memory holds of it. Another database, of a leader's
// snapshot, has another one of these; what outlives that is backend.ts.

import type { ReadEnvironment, ReadTable } from '../io/table.ts';
import { indexLimits } from '../storage-limits.ts';
import {
  type BackendObserver,
  type BackendOptions,
  type BackendParts,
  type CompactionHash,
  effectiveLimits,
} from './backend-options.ts';
import { DatabaseSizes } from './database-sizes.ts';
import type { FlusherPort } from './flusher-port.ts';
import { KeyIndex } from './index.ts';
import type { RevisionRows } from './keep-set.ts';
import { Maintenance } from './maintenance.ts';
import { type Recovered, recoverIndex, recoverNumbers } from './recovery.ts';
import { RowAhead } from './row-ahead.ts';
import { RowLog } from './row-log.ts';
import { RowReads } from './row-reads.ts';
import { SmallBuckets } from './small-buckets.ts';
import { WriteBack } from './write-back.ts';

/** What its parts ask of the engine. */
export interface DatabaseOwner {
  readonly observer: BackendObserver;
  /** All rows, in memory and in tables. */
  readonly allRows: RevisionRows;
  /** The newest one that was applied. */
  readonly revision: () => number;
  readonly compactionHash: (hash: CompactionHash) => void;
}

export class OpenDatabase {
  readonly reader: ReadEnvironment;
  readonly stateTable: ReadTable;
  readonly port: FlusherPort;
  /** Null: these tables cannot move. */
  readonly reopen: ((path: string) => void) | null;
  readonly index: KeyIndex;
  readonly rows: RowLog;
  readonly rowReads: RowReads;
  readonly buckets: SmallBuckets;
  readonly sizes: DatabaseSizes;
  readonly writeBack: WriteBack;
  readonly maintenance: Maintenance;
  /** What it held when it was opened. */
  readonly recovered: Recovered;
  /** Rows that the index tables lacked then. */
  readonly recoveredRows: number;
  private isClosed = false;

  /** `before`: of the database that this one replaces. Throws FatalError when it is damaged. */
  constructor(options: BackendOptions, parts: BackendParts, owner: DatabaseOwner, before: Maintenance | null) {
    const { reader, port } = parts;
    const limits = effectiveLimits(options);
    this.reader = reader;
    this.port = port;
    this.reopen = parts.reopen;
    reader.refresh();
    this.stateTable = reader.table('keelson');
    const keyTable = reader.table('key');
    const rowAhead = new RowAhead(keyTable);
    this.index = new KeyIndex(reader, {
      rowAhead,
      hashSeed: options.hashSeed ?? 0,
      limits: options.indexLimits ?? indexLimits,
    });
    this.rows = new RowLog(
      {
        slabAdded: (id, memory) => port.post({ kind: 'slab', id, memory }),
        slabDropped: (id) => port.post({ kind: 'dropSlab', id }),
      },
      limits.slabBytes,
    );
    this.rowReads = new RowReads(this.rows, keyTable, rowAhead);
    this.buckets = new SmallBuckets(reader, this.rows);
    this.recovered = recoverNumbers(reader);
    this.sizes = new DatabaseSizes(reader.sizes());
    this.recoveredRows = recoverIndex(reader, this.index, this.recovered.indexedRevision);
    const { rows, index, sizes } = this;
    this.writeBack = new WriteBack({
      ...{ rows, index, limits, port, revision: owner.revision },
      clock: options.clock,
      batchIntervalMs: options.batchIntervalMs ?? 100,
    });
    const { observer, allRows, compactionHash } = owner;
    const { writeBack } = this;
    this.maintenance = new Maintenance(
      { rows, index, writeBack, sizes, observer, port, allRows, compactionHash },
      before,
    );
  }

  /** Its views; the flusher closes its own. Again: nothing. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.reader.close();
  }
}
