// A comparison of a txn as it is typed: target("key") operator "value", read as Go's Sscanf with "%q) %s %q" reads it.
//
//   mod("key1") > "0"    c("key") = "0"    ver(`key`) != "2"    val("key") < "x"    lease("key") = "32695410dcc0ca06"
//
// Differences from etcdctl: it panics on an unknown operator and on any lease; here the one is malformed and the other a lease id
// in hexadecimal, as everywhere.

import { type Compare, CompareResult, CompareTarget } from '../proto/kv-schema.ts';
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
const steps: readonly RegExp[] = [
  new RegExp(`[ \\t]*(${quotedText})`, 'y'),
  /\)[ \t]+([^ \t]+)/y,
  new RegExp(`[ \\t]+(${quotedText})`, 'y'),
];

/** Key, operator and value, as many as there are. */
function scan(text: string): string[] {
  const found: string[] = [];
  let position = 0;
  for (const step of steps) {
    step.lastIndex = position;
    const match = step.exec(text);
    const plain = match === null ? null : step === steps[1] ? match[1]! : unquote(match[1]!);
    if (plain === null) break;
    found.push(plain);
    position = step.lastIndex;
  }
  return found;
}

export function parseCompare(line: string): Init {
  const parenthesis = line.indexOf('(');
  if (parenthesis < 0) throw malformed(line);
  const target = line.slice(0, parenthesis);
  const [key = '', operator = '', value] = scan(line.slice(parenthesis + 1));
  if (value === undefined) {
    throw malformed(line, `; got ${textOf(target)}(${quoteWord(key)}) ${textOf(operator)} ""`);
  }
  const result = results.get(operator);
  if (result === undefined) throw malformed(line, ` (unknown operator ${textOf(operator)})`);
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

function quoteWord(word: string): string {
  return quoteBytes(bytesOf(word));
}
