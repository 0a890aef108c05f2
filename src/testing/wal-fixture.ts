// What the tests of the WAL share: options with small segments, entries whose data follow from index and term, and a log
// that is written and read back in one call.

import type { FatalError } from '../base/fatal.ts';
import type { Disk } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { syncWriter } from '../io/wal-writer.ts';
import type { WalOptions } from '../wal/directory.ts';
import type { WalEntry, WalMetadata } from '../wal/format.ts';
import type { WalReplay } from '../wal/replay.ts';
import { openWal, type Wal } from '../wal/wal.ts';

export const testMetadata: WalMetadata = { clusterId: 0xcdf818194e3a8c32n, memberId: 0x8e9e05c52164694dn };

export interface WalEvents {
  readonly logs: string[];
  readonly fatal: FatalError[];
  readonly writes: number[];
  readonly fsyncs: number[];
}

export function walEvents(): WalEvents {
  return { logs: [], fatal: [], writes: [], fsyncs: [] };
}

/** Options for a log at /wal (or `directory`) with segments of 4 KiB and the synchronous writer. */
export function walOptions(disk: Disk, changes: Partial<WalOptions> = {}, events: WalEvents = walEvents()): WalOptions {
  return {
    disk,
    directory: '/wal',
    writer: syncWriter(disk),
    random: new SeededRandom(1),
    metadata: testMetadata,
    startIndex: null,
    fsync: true,
    segmentsMax: 5,
    observer: { write: (_, bytes) => events.writes.push(bytes), fsync: (seconds) => events.fsyncs.push(seconds) },
    log: (_, message, fields) => events.logs.push(`${message} ${JSON.stringify(fields)}`),
    onFatal: (error) => events.fatal.push(error),
    segmentBytes: 4096,
    ...changes,
  };
}

/** An entry of `bytes` bytes whose content follows from index and term. */
export function walEntry(index: number, term = 1, bytes = 20): WalEntry {
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i++) data[i] = (index * 7 + term * 13 + i) & 0xff;
  return { index, term, type: index % 7 === 0 ? 1 : 0, data };
}

export function walEntries(first: number, count: number, term = 1, bytes = 20): WalEntry[] {
  return Array.from({ length: count }, (_, i) => walEntry(first + i, term, bytes));
}

/** Appends and waits until it is durable. */
export function appendDurably(wal: Wal, entries: readonly WalEntry[], commit = 0): void {
  const term = entries.at(-1)?.term ?? wal.hardState.term;
  wal.append({ term, vote: 7n, commit: Math.max(commit, wal.hardState.commit) }, entries);
  if (!wal.waitDurable(wal.sync(ignore), 10_000)) throw new Error('the WAL did not become durable in 10 s');
}

export function ignore(): void {}

/** Opens, closes, returns what was read. */
export function reopen(disk: Disk, changes: Partial<WalOptions> = {}, events: WalEvents = walEvents()): WalReplay {
  const { wal, replay } = openWal(walOptions(disk, changes, events));
  wal.close();
  return replay;
}
