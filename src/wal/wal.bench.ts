// Cost of the WAL on the machine's disk: one 4 KiB durable write, then batches of 500 entries of 300 B, for both writers.
//
//   node src/wal/wal.bench.ts [directory]      (a directory on the disk to measure, default: the temporary one)
//
// CPU is of the whole process, worker included. "busy" runs the core as the server does: wait at most 2 ms.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { nodeDisk } from '../io/file.ts';
import { systemRandom } from '../io/random.ts';
import { threadedWriter } from '../io/wal-thread.ts';
import { syncWriter } from '../io/wal-writer.ts';
import type { WalEntry } from './format.ts';
import { openWal } from './wal.ts';

const parent = process.argv[2] ?? os.tmpdir();

function measure(kind: string, entriesPerBatch: number, entryBytes: number, batches: number): void {
  const directory = fs.mkdtempSync(path.join(parent, 'keelson-wal-bench-'));
  const fsyncs: number[] = [];
  const { wal } = openWal({
    disk: nodeDisk,
    directory,
    writer: kind === 'thread' ? threadedWriter() : syncWriter(nodeDisk),
    random: systemRandom,
    metadata: { clusterId: 1n, memberId: 1n },
    startIndex: 0,
    fsync: true,
    segmentsMax: 2,
    observer: { write: () => {}, fsync: (seconds) => fsyncs.push(seconds * 1000) },
    log: console.log,
    onFatal: console.error,
  });
  const data = Buffer.alloc(entryBytes, 'x');
  const times: number[] = [];
  let index = 0;
  const turn = (): void => {
    const entries: WalEntry[] = [];
    for (let i = 0; i < entriesPerBatch; i++) entries.push({ index: ++index, term: 1, type: 0, data });
    const started = performance.now();
    wal.append({ term: 1, vote: 1n, commit: index }, entries);
    const ticket = wal.sync(() => {});
    while (!wal.waitDurable(ticket, 2));
    times.push(performance.now() - started);
    if (times.length % 50 === 0) wal.release(index);
  };
  for (let i = 0; i < batches / 4; i++) turn();
  times.length = 0;
  fsyncs.length = 0;
  const cpu = process.cpuUsage();
  const started = performance.now();
  for (let i = 0; i < batches; i++) turn();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const sorted = times.sort((a, b) => a - b);
  const at = (share: number): string => sorted[Math.floor(sorted.length * share)]!.toFixed(3);
  fsyncs.sort((a, b) => a - b);
  console.log(
    `${kind.padEnd(6)} ${entriesPerBatch} x ${entryBytes} B: p50 ${at(0.5)} p99 ${at(0.99)} p99.9 ${at(0.999)} ms, fdatasync p50 ` +
      `${fsyncs[fsyncs.length >> 1]!.toFixed(3)} ms, CPU ${((user + system) / batches).toFixed(0)} us a write, ` +
      `${Math.round((batches * entriesPerBatch) / seconds)} entries/s`,
  );
  wal.close();
  fs.rmSync(directory, { recursive: true });
}

for (let round = 0; round < 3; round++) {
  for (const kind of ['sync', 'thread']) measure(kind, 1, 4096 - 160, 2000);
  for (const kind of ['sync', 'thread']) measure(kind, 500, 300, 1200);
}
