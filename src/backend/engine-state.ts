// The engine's own numbers beside etcd's buckets: one entry of the table `keelson`, written by every commit
// (the index keeps its own entries there).
//
//   offset  bytes, big-endian
//        0      4  format version: 1
//        8      8  generation: number of the commit
//       16      8  current revision: the largest main ever flushed; it does not fall when compaction removes the last row
//       24      8  indexed revision: all changes up to it are merged into the index tables
//
// And the names of all tables.

import { assert } from '../base/assert.ts';
import { assertSound, ExitCode, FatalError } from '../base/fatal.ts';
import type { ReadTable, WriteTable } from '../io/table.ts';
import { BUCKET_NAMES } from '../snapshot/schema.ts';
import { indexTableNames } from './index-tables.ts';

export const TABLE_NAMES: readonly string[] = [...BUCKET_NAMES, ...indexTableNames, 'garbage'];

const FORMAT_VERSION = 1;
/** They are counted up by one: a number beyond this is damage, not a version. */
const FORMAT_VERSION_MAX = 1000;
const STATE_BYTES = 32;
const STATE_KEY: Buffer = Buffer.from('state');
const TWO_32 = 4294967296;

export interface EngineState {
  generation: number;
  currentRevision: number;
  indexedRevision: number;
}

function writeNumber(out: Buffer, value: number, offset: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'engine state: number out of range');
  out.writeUInt32BE(Math.floor(value / TWO_32), offset);
  out.writeUInt32BE(value % TWO_32, offset + 4);
}

function readNumber(bytes: Buffer, offset: number): number {
  const value = bytes.readUInt32BE(offset) * TWO_32 + bytes.readUInt32BE(offset + 4);
  assertSound(Number.isSafeInteger(value), 'a number of its engine is out of range');
  return value;
}

export function writeEngineState(table: WriteTable, state: EngineState): void {
  const out = Buffer.alloc(STATE_BYTES);
  out.writeUInt32BE(FORMAT_VERSION, 0);
  writeNumber(out, state.generation, 8);
  writeNumber(out, state.currentRevision, 16);
  writeNumber(out, state.indexedRevision, 24);
  table.put(STATE_KEY, out);
}

/** null: a new database. `database`: its name in the error that says that another version of keelson wrote it. */
export function readEngineState(table: ReadTable, database = 'the database'): EngineState | null {
  const bytes = table.get(STATE_KEY);
  if (bytes === undefined) return null;
  const format = bytes.length < 4 ? 0 : bytes.readUInt32BE(0);
  assertSound(format > 0 && format <= FORMAT_VERSION_MAX, 'its engine has an impossible format version');
  if (format !== FORMAT_VERSION) throw otherVersion(database, format);
  assertSound(bytes.length >= STATE_BYTES, 'the numbers of its engine are cut');
  return {
    generation: readNumber(bytes, 8),
    currentRevision: readNumber(bytes, 16),
    indexedRevision: readNumber(bytes, 24),
  };
}

/** After a downgrade, say. Nothing is lost, and a restored snapshot would lose what came after it. */
function otherVersion(database: string, format: number): FatalError {
  return new FatalError(
    ExitCode.dataDir,
    `${database} was written by another version of keelson: its format is ${format}, this version reads format ${FORMAT_VERSION}. ` +
      'It is not damaged: run the version that wrote it',
  );
}
