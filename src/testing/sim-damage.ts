// What a disk does to what it was given to keep, while its member is down: bits of the WAL that flip, entries of the database that are
// no longer what was written, reads that fail. Only such damage as a member can tell from what a crash leaves, so that it has to end
// the start with the exit code for it: of the WAL's last record a single bit, since more than that might as well be a write that did not
// finish, and not the bytes of a row's value (sim-rot.ts).

import { ExitCode } from '../base/fatal.ts';
import type { Random } from '../io/random.ts';
import { walDirectory } from '../server/data-directory.ts';
import { encodeMemberKey, MetaKey } from '../snapshot/schema.ts';
import { segmentMagic } from '../wal/format.ts';
import { listSegments } from '../wal/replay.ts';
import { SegmentReader } from '../wal/segment-reader.ts';
import type { SimMember } from './sim-member.ts';

export interface Damage {
  readonly what: string;
  /** What the next start must end with. */
  readonly exitCode: ExitCode;
  /** False: it may also not come to what is damaged, as to a segment of the WAL that is of the past. */
  readonly isMet: boolean;
  /** The start after that one goes well: nothing is lost. */
  readonly isPassing: boolean;
}

/** Damages what a member that is down has on its disk; null: there is nothing yet whose damage could be told. */
export function damageOf(sim: SimMember, random: Random): Damage | null {
  switch (random.below(4)) {
    case 0:
      return failRead(sim, random);
    case 1:
      return damageDatabase(sim, random);
    default:
      return rotLog(sim, random);
  }
}

/** A bit of a record of the WAL, or of a segment's header. */
function rotLog(sim: SimMember, random: Random): Damage | null {
  const { disk } = sim;
  const segments = listSegments(disk, walDirectory(sim.config));
  const which = random.below(segments.length);
  const path = segments[which]?.path;
  if (path === undefined) return null;
  const reader = SegmentReader.open(disk, path);
  if (typeof reader === 'string') return null;
  let beforeLast = 0;
  let end = 0;
  while (reader.next()) {
    beforeLast = end;
    end = reader.position;
  }
  reader.close();
  const isLast = which === segments.length - 1;
  if (end === 0) return null;
  // Without the magic bytes it is not known to be a WAL of keelson's: another exit code.
  const from = random.below(3) === 0 ? Math.max(beforeLast, segmentMagic.length) : segmentMagic.length;
  const at = from + random.below(end - from);
  const mask = 1 << random.below(8);
  disk.rot(path, at, mask);
  if (
    disk
      .content(path)
      .subarray(at, end)
      .every((byte) => byte === 0)
  ) {
    // The last bit that the last record had: its write may have ended before it.
    disk.rot(path, at, mask);
    return null;
  }
  return { what: `byte ${at} of ${path} (^ ${mask})`, exitCode: ExitCode.walCorrupt, isMet: isLast, isPassing: false };
}

/** One of the next reads of the WAL fails, once. */
function failRead(sim: SimMember, random: Random): Damage | null {
  const { disk } = sim;
  const directory = walDirectory(sim.config);
  if (listSegments(disk, directory).length === 0) return null;
  let left = 1 + random.below(2);
  disk.fault = (call, path) => {
    if (call !== 'read' || !path.startsWith(directory) || --left > 0) return null;
    disk.fault = () => null;
    return { error: 'EIO' };
  };
  return { what: 'a read of the WAL fails', exitCode: ExitCode.walCorrupt, isMet: true, isPassing: true };
}

const NO_BYTES = Buffer.alloc(0);

/** An entry that every start reads: gone, cut or changed. */
function damageDatabase(sim: SimMember, random: Random): Damage | null {
  const { tables } = sim;
  const reader = tables.openReader();
  let hasRows = false;
  reader.table('key').scan(undefined, undefined, () => {
    hasRows = true;
    return false;
  });
  const places: (readonly [table: string, key: Buffer, make: (value: Buffer) => Buffer | null])[] = [
    ['meta', MetaKey.consistentIndex, (value) => value.subarray(0, 7)],
    ['meta', MetaKey.term, (value) => value.subarray(0, 3)],
    ['meta', MetaKey.confState, (value) => value.subarray(0, value.length - 1)],
    ['keelson', Buffer.from('state'), (value) => value.subarray(0, 20)],
    ['members', encodeMemberKey(sim.memberId), () => NO_BYTES],
  ];
  if (hasRows)
    places.push(['meta', MetaKey.consistentIndex, () => null], ['keelson', Buffer.from('state'), () => null]);
  const [name, key, make] = places[random.below(places.length)]!;
  const found = reader.table(name).get(key);
  const value = found === undefined ? undefined : Buffer.from(found);
  reader.close();
  if (value === undefined || value.length === 0) return null;
  const writer = tables.openWriter();
  const changed = make(value);
  writer.transaction(() => {
    if (changed === null) writer.table(name).remove(key);
    else writer.table(name).put(key, changed);
  });
  writer.close();
  const what = `${name}/${key.toString()} is ${changed === null ? 'gone' : `of ${changed.length} bytes`}`;
  return { what, exitCode: ExitCode.backendCorrupt, isMet: true, isPassing: false };
}
