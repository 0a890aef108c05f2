// A line on stderr as etcd's tools log: JSON, for the reader who wants to know what went on. What a script reads is on stdout.

import path from 'node:path';
import { complain } from './output.ts';

const logger: string = path.basename(process.argv[1] ?? '', '.ts');

export function logLine(
  level: 'info' | 'warn' | 'fatal',
  message: string,
  fields: Readonly<Record<string, unknown>>,
): void {
  complain(`${JSON.stringify({ level, ts: new Date().toISOString(), logger, msg: message, ...fields })}\n`);
}
