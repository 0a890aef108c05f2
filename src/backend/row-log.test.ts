// Goal: what the core appends, the flusher's side reads, in order, across slabs of any size and their reuse; rows are found
// until they are dropped. Method: seeded random records against a list, reading and dropping at random positions.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { RecordKind, RowLog, RowLogReader } from './row-log.ts';

test('records of all kinds, read behind and dropped', () => {
  let dropped = 0;
  for (let seed = 1; seed <= 30; seed++) {
    const random = new SeededRandom(seed);
    const reader = new RowLogReader();
    const log = new RowLog(
      {
        slabAdded: (id, memory) => reader.addSlab(id, memory),
        slabDropped: (id) => {
          reader.dropSlab(id);
          dropped++;
        },
      },
      64 + 8 * random.below(200),
    );
    const written: string[] = [];
    const read: string[] = [];
    const rows: { main: number; sub: number; ordinal: number; text: string }[] = [];
    /** Positions after each end of an apply, with the rows until there. */
    const cuts: { position: number; rowCount: number }[] = [];
    let next = 0;
    let main = 2 ** 33;
    for (let apply = 1; apply < 120; apply++) {
      main++;
      for (let sub = 0; sub < random.below(4); sub++) {
        const text = 'r'.repeat(random.below(20) === 0 ? random.below(3000) : random.below(60));
        const tombstone = random.below(4) === 0;
        const ordinal = log.appendRow(main, sub, tombstone, text.length, main - 1, 3);
        log.rowBuffer.write(text, log.rowOffset, 'latin1');
        rows.push({ main, sub, ordinal, text });
        written.push(`row ${main}.${sub} ${tombstone} over ${main - 1}.3 ${text}`);
      }
      if (random.below(2) === 0) {
        const value = 'v'.repeat(random.below(200));
        log.appendBucketPut(random.below(9), Buffer.from(`key${apply}`), Buffer.from(value));
        written.push(`put key${apply} ${value}`);
      }
      if (random.below(4) === 0) {
        log.appendBucketDelete(3, Buffer.from(`gone${apply}`));
        written.push(`delete gone${apply}`);
      }
      log.endApply(2 ** 40 + apply, apply);
      written.push(`end ${2 ** 40 + apply} ${apply}`);
      cuts.push({ position: log.position, rowCount: rows.length });
      if (random.below(3) > 0) continue;
      const cut = cuts[next + random.below(cuts.length - next)]!;
      next = cuts.indexOf(cut);
      while (reader.position < cut.position) read.push(recordOf(reader));
      log.drop(cut.position, cut.rowCount);
      assert.equal(log.backlogBytes, log.position - cut.position);
      checkRows(log, rows, cut.rowCount);
    }
    while (reader.position < log.position) read.push(recordOf(reader));
    assert.deepEqual(read, written, `seed ${seed}`);
  }
  assert.ok(dropped > 0, 'large slabs are given back');
});

function recordOf(reader: RowLogReader): string {
  reader.next();
  const value = reader.bytes.toString('latin1', reader.valueStart, reader.valueEnd);
  const key = reader.bytes.toString('latin1', reader.keyStart, reader.keyEnd);
  switch (reader.kind) {
    case RecordKind.endApply:
      return `end ${reader.index} ${reader.term}`;
    case RecordKind.bucketPut:
      return `put ${key} ${value}`;
    case RecordKind.bucketDelete:
      return `delete ${key}`;
    default: {
      const over = `${reader.supersededMain}.${reader.supersededSub}`;
      return `row ${reader.main}.${reader.sub} ${reader.kind === RecordKind.tombstone} over ${over} ${value}`;
    }
  }
}

function checkRows(
  log: RowLog,
  rows: readonly { main: number; sub: number; ordinal: number; text: string }[],
  droppedCount: number,
): void {
  const out = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  rows.forEach(({ main, sub, ordinal, text }, i) => {
    const kept = i >= droppedCount;
    assert.equal(log.read(main, sub, ordinal, out), kept);
    if (kept) assert.equal(out.buffer.toString('latin1', out.start, out.end), text);
    assert.equal(log.find(main, sub, out), kept);
    assert.equal(log.read(main, sub + 1, ordinal, out), false, 'another revision');
  });
  const scanned: string[] = [];
  const from = rows[Math.floor(rows.length / 2)]?.main ?? 0;
  log.scan(from, Infinity, (main, sub, _tombstone, buffer, start, end) => {
    scanned.push(`${main}.${sub}=${buffer.toString('latin1', start, end)}`);
    return true;
  });
  const wanted = rows.slice(droppedCount).filter((row) => row.main >= from);
  assert.deepEqual(
    scanned,
    wanted.map((row) => `${row.main}.${row.sub}=${row.text}`),
  );
  assert.equal(log.firstMain(), rows[droppedCount]?.main ?? Infinity);
}
