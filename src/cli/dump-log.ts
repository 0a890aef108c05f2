// `keelsonutl dump-log DIR`: the raft log of a member as JSON lines (src/wal/dump.ts says which). Also beside a running member,
// and of a whole data directory: then of the log in it.

import { nodeDisk } from '../io/file.ts';
import { dumpWal } from '../wal/dump.ts';
import { textOf } from './byte-text.ts';
import type { Output } from './output.ts';

export function dumpLog(byteText: string, out: Output): void {
  const given = textOf(byteText).replace(/(?<=.)\/+$/, '');
  const inside = `${given}/member/wal`;
  for (const line of dumpWal(nodeDisk, nodeDisk.exists(inside) ? inside : given)) out.line(line);
}
