// A process to be killed: appends to the log in argv[2] until it dies, and prints the last index of each batch once it is
// durable. `sync` or `thread` in argv[3] chooses the writer; the content of the entries follows from their index.

import { writeSync } from 'node:fs';
import { nodeDisk } from '../io/file.ts';
import { systemRandom } from '../io/random.ts';
import { threadedWriter } from '../io/wal-thread.ts';
import { syncWriter } from '../io/wal-writer.ts';
import { openWal } from '../wal/wal.ts';
import { walEntries, walOptions } from './wal-fixture.ts';

const directory = process.argv[2]!;
const { wal, replay } = openWal(
  walOptions(nodeDisk, {
    directory,
    random: systemRandom,
    writer: process.argv[3] === 'thread' ? threadedWriter() : syncWriter(nodeDisk),
    segmentBytes: 1 << 20,
    segmentsMax: 0,
    startIndex: 0,
  }),
);
let next = replay.last.index + 1;
for (;;) {
  const count = 1 + (next % 50);
  const last = next + count - 1;
  wal.append({ term: 1, vote: 1n, commit: last }, walEntries(next, count, 1, next % 400));
  const ticket = wal.sync(() => writeSync(1, `${last}\n`));
  while (!wal.waitDurable(ticket, 2));
  next = last + 1;
}
