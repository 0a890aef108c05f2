// A comparison of a txn as it is typed: target("key") operator "value", read as Go's Sscanf with "%q) %s %q" reads it.
//
//   mod("key1") > "0"    c("key") = "0"    ver(`key`) != "2"    val("key") < "x"    lease("key") = "32695410dcc0ca06"
//
// Differences from etcdctl: it panics on an unknown operator and on any lease; here the one is malformed and the other a lease id
// in hexadecimal, as everywhere.

import { CompareResult, CompareTarget, type Compare } from '../proto/kv-schema.ts';
import type { MessageInit } from '../proto/message.ts';
import { bytesOf, quoteBytes, textOf, unquote } from './byte-text.ts';
import { ExitCode, ExitError } from './exit.ts';
import { parseInt64, safeNumber } from './flag.ts';

type Init = MessageInit<typeof Compare>;

const results: ReadonlyMap<string, number> = new Map([
  ['=', CompareResult.equal],
  ['!=', CompareResult.notEqual],
  ['>', CompareResult.greater],
  ['<', CompareResult.less],
]);

const quotedText = '"(?:[^"\\\\]|\\\\.)*"|`[^`]*`';
/** Spaces match spaces, at least one where the format has one. */
const afterParenthesis: RegExp = new RegExp(`^[ \\t]*(${quotedText})\\)[ \\t]+([^ \\t]+)[ \\t]+(${quotedText})`);

export function parseCompare(line: string): Init {
  const parenthesis = line.indexOf('(');
  if (parenthesis < 0) throw malformed(line);
  const target = line.slice(0, parenthesis).trimEnd();
  const match = afterParenthesis.exec(line.slice(parenthesis + 1));
  const key = match === null ? null : unquote(match[1]!);
  const value = match === null ? null : unquote(match[3]!);
  if (match === null || key === null || value === null) throw malformed(line);
  const result = results.get(match[2]!);
  if (result === undefined) throw malformed(line, ` (unknown operator ${textOf(match[2]!)})`);
  const compare = { result, key: bytesOf(key) };
  switch (target) {
    case 'ver':
    case 'version':
      return { ...compare, target: CompareTarget.version, version: numberOf(line, value) };
    case 'c':
    case 'create':
      return { ...compare, target: CompareTarget.create, createRevision: numberOf(line, value) };
    case 'm':
    case 'mod':
      return { ...compare, target: CompareTarget.mod, modRevision: numberOf(line, value) };
    case 'val':
    case 'value':
      return { ...compare, target: CompareTarget.value, value: bytesOf(value) };
    case 'lease': {
      const lease = parseInt64(value, 16);
      if (!lease.ok) throw invalid(line);
      return { ...compare, target: CompareTarget.lease, lease: lease.value };
    }
    default:
      throw malformed(line, ` (unknown target ${textOf(target)})`);
  }
}

function numberOf(line: string, text: string): number {
  const parsed = parseInt64(text, 10);
  if (!parsed.ok) throw invalid(line);
  return safeNumber(parsed.value);
}

function malformed(line: string, reason = ''): ExitError {
  return new ExitError(ExitCode.invalidInput, `malformed comparison: ${textOf(line)}${reason}`);
}

function invalid(line: string): ExitError {
  return new ExitError(ExitCode.invalidInput, `invalid txn compare request: ${textOf(line)}`);
}

/** For messages. */
export function quoteWord(word: string): string {
  return quoteBytes(bytesOf(word));
}
