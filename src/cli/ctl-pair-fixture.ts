// Two real etcds that are alike to the last id, for tests of keelsonctl against etcdctl: each command line runs by etcdctl on the one and
// by keelsonctl on the other, in step, and stdout, exit code and the plain lines of stderr must be equal. Forgiven: the server's address,
// durations, the remaining time of a lease, sizes of the database, lease ids (each maps to its ordinal), JSON log lines on stderr, the
// usage after an error, help. Who imports this has them started before its tests and ended after them.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { peerBinary } from '../testing/peer-programs.ts';
import { keelsonctl, type Member, type Result, type RunOptions, runProgram, startEtcd } from './peer-fixture.ts';

export const scratch: string = mkdtempSync(join(tmpdir(), 'keelsonctl-peer-'));
const formats = ['simple', 'json', 'fields', 'table', 'protobuf'] as const;

export interface Side {
  readonly name: string;
  readonly file: string;
  readonly member: Member;
  readonly leases: string[];
}
export let sides: readonly [Side, Side];

before(async () => {
  const a = await startEtcd(join(scratch, 'a'));
  const b = await startEtcd(join(scratch, 'b'));
  sides = [
    { name: 'etcdctl', file: peerBinary('etcdctl'), member: a, leases: [] },
    { name: 'keelsonctl', file: keelsonctl, member: b, leases: [] },
  ];
});

after(() => {
  for (const side of sides ?? []) side.member.process.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

/** $0, $1, … in a word are lease ids, FILE a file of the side's own. */
function wordsOf(side: Side, words: readonly string[]): string[] {
  return words.map((word) =>
    word
      .replace(/\$(\d)/g, (_all, index) => side.leases[Number(index)] ?? 'missing')
      .replaceAll('FILE', join(scratch, side.name)),
  );
}

export function masked(side: Side, bytes: Buffer | string): string {
  let text = typeof bytes === 'string' ? bytes : bytes.toString('latin1');
  text = text.replaceAll(side.member.endpoint, 'ENDPOINT').replaceAll(join(scratch, side.name), 'FILE');
  side.leases.forEach((id, index) => {
    text = text.replaceAll(id, `LEASE${index}`).replaceAll(String(BigInt(`0x${id}`)), `LEASE${index}`);
  });
  return text
    .replace(/\b\d+(?:\.\d+)?(?:ns|µs|Âµs|ms|s)\b/g, 'DURATION')
    .replace(/"ttl":\d+/g, '"ttl":TTL')
    .replace(/"TTL" : \d+/g, '"TTL" : TTL')
    .replace(/("(?:dbSize|dbSizeInUse)":)\d+/g, '$1SIZE')
    .replace(/("DBSize(?:InUse)?" : )\d+/g, '$1SIZE')
    .replace(/\d+(?:\.\d)? [kM]B(, \d+(?:\.\d)? [kM]B, \d+%)?/g, 'SIZE');
}

/** The lines that a person or a script reads: no logs, and of a usage nothing. */
export function plainErrors(side: Side, stderr: string): string[] {
  const text = masked(side, stderr).replace(/^Usage:\n[\s\S]*?(?=^Error:|$(?![\s\S]))/gm, '');
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('{'))
    .map((line) => line.replaceAll(side.name, 'PROGRAM'));
}

export async function onBoth(words: readonly string[], options: RunOptions = {}): Promise<readonly [Result, Result]> {
  const run = (side: Side): Promise<Result> =>
    runProgram(side.file, ['--endpoints', side.member.endpoint, ...wordsOf(side, words)], options);
  return Promise.all([run(sides[0]), run(sides[1])]);
}

export async function same(words: readonly string[], options: RunOptions = {}): Promise<void> {
  const [theirs, ours] = await onBoth(words, options);
  const line = words.join(' ');
  assert.equal(masked(sides[1], ours.stdout), masked(sides[0], theirs.stdout), `stdout of: ${line}`);
  assert.equal(ours.code, theirs.code, `exit code of: ${line}\n${ours.stderr}`);
  assert.deepEqual(plainErrors(sides[1], ours.stderr), plainErrors(sides[0], theirs.stderr), `stderr of: ${line}`);
}

export async function sameInEveryFormat(words: readonly string[], options: RunOptions = {}): Promise<void> {
  for (const format of formats) await same(['-w', format, ...words], options);
}

/** Words separated by single spaces. */
export async function sameLines(lines: readonly string[]): Promise<void> {
  for (const line of lines) await same(line.split(' '));
}
