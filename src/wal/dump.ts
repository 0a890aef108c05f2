// The content of a WAL directory as JSON lines, for `keelsonutl dump-log DIR`: read-only, without the lock, also beside a
// running member. In the order written: an entry whose index is not above the one before it overwrites the log from there.
//
//   {"segment":"<name>","firstIndex":1,"clusterId":"<hex>","memberId":"<hex>"}
//   {"index":7,"term":2,"type":"normal","data":"<base64>"}          type: normal, confChange, confChangeV2
//   {"hardState":{"term":2,"vote":"<hex>","commit":6}}
//   {"snapshot":{"index":5,"term":2,"reset":false}}
//   {"end":{"segment":"<name>","offset":4096,"tail":"clean"}}          the last line; tail: clean, torn (with a reason), or
//                                                                      released (removed by the member while it was read)

import { ExitCode, FatalError } from '../base/fatal.ts';
import { type Disk, errorCode } from '../io/file.ts';
import { decodeSections, type SectionVisitor } from './format.ts';
import { listSegments, openSegment, type SegmentFile } from './replay.ts';
import { type SegmentReader, TailKind } from './segment-reader.ts';

const entryTypes = ['normal', 'confChange', 'confChangeV2'] as const;

/** Yields lines without their newline. Throws FatalError (walCorrupt) at damage, after everything before it. */
export function* dumpWal(disk: Disk, directory: string): Generator<string, void, undefined> {
  const empty = new FatalError(ExitCode.dataDir, `wal: ${directory} holds no log`);
  if (!disk.exists(directory)) throw empty;
  let previous: SegmentFile | null = null;
  for (;;) {
    const file = nextSegment(disk, directory, previous);
    if (file === null && previous === null) throw empty;
    if (file === null && disk.exists(previous!.path)) throw missing(disk, directory, previous!);
    const reader = file === null ? null : openLive(disk, file);
    if (file === null || reader === null) {
      // Recycled or deleted between the listing and now. The member releases from the old end only.
      if (previous === null) continue;
      yield end(previous, 0, 'released');
      return;
    }
    try {
      yield* dumpSegment(reader, file);
      if (!reader.ended) {
        yield endOf(disk, directory, reader, file);
        return;
      }
    } finally {
      reader.close();
    }
    previous = file;
  }
}

function nextSegment(disk: Disk, directory: string, previous: SegmentFile | null): SegmentFile | null {
  const segments = listSegments(disk, directory);
  if (previous === null) return segments[0] ?? null;
  return segments.find((segment) => segment.sequence === previous.sequence + 1) ?? null;
}

function missing(disk: Disk, directory: string, previous: SegmentFile): FatalError {
  const later = listSegments(disk, directory).find((segment) => segment.sequence > previous.sequence);
  const before = later === undefined ? '' : `, before ${later.path}`;
  return new FatalError(
    ExitCode.walCorrupt,
    `wal: segment ${previous.sequence + 1} is missing in ${directory}${before}`,
  );
}

/** Null when the member has released the segment meanwhile. */
function openLive(disk: Disk, file: SegmentFile): SegmentReader | null {
  try {
    return openSegment(disk, file);
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    if (errorCode(cause) === 'ENOENT' || !disk.exists(file.path)) return null;
    throw error;
  }
}

function* dumpSegment(reader: SegmentReader, file: SegmentFile): Generator<string, void, undefined> {
  const { metadata, firstIndex } = reader.header;
  const clusterId = metadata.clusterId.toString(16);
  const memberId = metadata.memberId.toString(16);
  yield JSON.stringify({ segment: baseName(file), firstIndex, clusterId, memberId });
  let lines: string[] = [];
  const visitor: SectionVisitor = {
    hardState: ({ term, vote, commit }) => {
      lines.push(JSON.stringify({ hardState: { term, vote: vote.toString(16), commit } }));
    },
    marker: (marker) => {
      lines.push(JSON.stringify({ snapshot: marker }));
    },
    entry: (index, term, type, payload, start, end) => {
      const data = payload.toString('base64', start, end);
      lines.push(JSON.stringify({ index, term, type: entryTypes[type], data }));
    },
  };
  for (;;) {
    const position = reader.position;
    if (!reader.next()) return;
    const problem = decodeSections(reader.payload, visitor);
    if (problem !== null) {
      throw new FatalError(
        ExitCode.walCorrupt,
        `wal: the record at offset ${position} of ${file.path} makes no sense: ${problem}`,
      );
    }
    yield* lines;
    lines = [];
  }
}

/** The reader stands where no good record is: the last line, or damage. */
function endOf(disk: Disk, directory: string, reader: SegmentReader, file: SegmentFile): string {
  const tail = reader.tail();
  if (!disk.exists(file.path)) return end(file, reader.position, 'released');
  const next = nextSegment(disk, directory, file);
  // A successor without records is a crash, or a live member, in the middle of a rotation.
  const follower = next === null ? null : openLive(disk, next);
  const isFollowed = follower !== null && !follower.isUnused();
  follower?.close();
  if (tail.kind === TailKind.damaged || isFollowed) {
    // A live member may have written on between the two looks.
    if (reader.next()) return end(file, reader.position, 'torn', 'the log is being written faster than it is read');
    throw new FatalError(
      ExitCode.walCorrupt,
      `wal: ${file.path} is damaged at offset ${reader.position}: ${tail.reason}${isFollowed ? ', but a later segment exists' : ''}`,
    );
  }
  return end(file, reader.position, tail.kind, tail.kind === TailKind.torn ? tail.reason : undefined);
}

function end(file: SegmentFile, offset: number, tail: string, reason?: string): string {
  return JSON.stringify({ end: { segment: baseName(file), offset, tail, reason } });
}

function baseName(file: SegmentFile): string {
  return file.path.slice(file.path.lastIndexOf('/') + 1);
}
