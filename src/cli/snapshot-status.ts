// `keelsonutl snapshot status` and `keelsonutl hashkv`: the work is in src/snapshot/status.ts and hashkv-file.ts, this prints.

import { formatStatus, STATUS_FORMATS, type StatusFormat, snapshotStatus } from '../snapshot/status.ts';
import { ExitCode, ExitError } from './exit.ts';
import { goJson } from './go-json.ts';
import { hashKvOfFile } from './hashkv-file.ts';
import type { Output } from './output.ts';
import { openDatabase, openSnapshotFile, orDamaged } from './snapshot-file.ts';
import { tableText } from './table.ts';

function checkFormat(format: string): StatusFormat | 'protobuf' {
  const known = STATUS_FORMATS.find((each) => each === format);
  if (known !== undefined) return known;
  if (format === 'protobuf') return format;
  throw new ExitError(ExitCode.badFeature, 'unsupported output format');
}

function notProtobuf(): ExitError {
  return new ExitError(ExitCode.badFeature, 'protobuf not supported as output format');
}

export function printStatus(path: string, writeOut: string, out: Output): void {
  const file = openSnapshotFile(path, 'stat');
  try {
    const format = checkFormat(writeOut);
    const status = orDamaged(file.path, snapshotStatus(openDatabase(file)));
    if (format === 'protobuf') throw notProtobuf();
    out.text(formatStatus(status, format));
  } finally {
    file.close();
  }
}

export function printHashKv(path: string, revision: number, writeOut: string, out: Output): void {
  const format = checkFormat(writeOut);
  const file = openSnapshotFile(path, 'stat');
  try {
    const { hash, hashRevision, compactRevision } = hashKvOfFile(file.path, openDatabase(file), revision);
    if (format === 'protobuf') throw notProtobuf();
    if (format === 'json') out.line(goJson({ hash, hashRevision, compactRevision }));
    else if (format === 'fields') {
      out.line(`"Hash" : ${hash}`);
      out.line(`"Hash revision" : ${hashRevision}`);
      out.line(`"Compact revision" : ${compactRevision}`);
    } else {
      const row = [hash, hashRevision, compactRevision].map(String);
      out.text(
        format === 'table' ? tableText(['hash', 'hash revision', 'compact revision'], [row]) : `${row.join(', ')}\n`,
      );
    }
  } finally {
    file.close();
  }
}
